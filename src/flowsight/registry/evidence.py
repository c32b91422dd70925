"""What the registry knows of a version: its items, its predictions, its numbers."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flowsight.errors import InputError
from flowsight.registry import subject as subjects
from flowsight.registry.candidate import BEFORE, ITEMS, SCORES
from flowsight.registry.store import NotThereError, Registry
from flowsight.registry.subject import Kind, Subject

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion

LEARNS = ("train", "val")
"""Weights come from one; epochs and the fusion weight are chosen on the other."""
_OLD = {"clip_id": "item_id"}
"""Of versions from when there were only clips."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """One version."""

    model: str
    version: str
    tags: Mapping[str, str]
    items: pd.DataFrame
    """See `Subject.items`."""
    scores: pd.DataFrame
    """Of the test items, see `Subject.scores`."""

    @property
    def uri(self) -> str:
        """The version, as MLflow names it."""
        return f"models:/{self.model}/{self.version}"

    @property
    def subject(self) -> Subject:
        """What it is judged on."""
        return subjects.of_version(self.model, self.tags)

    @property
    def kind(self) -> Kind:
        """How its numbers are called."""
        return self.subject.KIND

    @property
    def tested(self) -> pd.DataFrame:
        """Its test items."""
        return self.items[self.items["subset"] == "test"]

    @property
    def learnt(self) -> pd.DataFrame:
        """Items that it has learnt from."""
        return self.items[self.items["subset"].isin(LEARNS)]


def load(registry: Registry, version: ModelVersion) -> Evidence:
    """Read a version's evidence.

    Raises:
        NotThereError: its run or an artifact is gone.
        InputError: a table lacks a column.
        ResourceError: the registry cannot be reached.
    """
    import pandas as pd

    registry.run(version)
    what = f"version {version.version} of {version.name}"
    with tempfile.TemporaryDirectory(prefix="flowsight-registry-") as name:
        items = pd.read_csv(_items(registry, version.run_id, Path(name)), dtype=str)
        scores = pd.read_parquet(registry.download(version.run_id, SCORES, Path(name)))
    items, scores = items.rename(columns=_OLD), scores.rename(columns=_OLD)
    if "score" not in scores and {"label", "predicted"} <= set(scores):
        scores = scores.assign(score=(scores["predicted"] == scores["label"]).astype(float))
    _check_columns(items, ("item_id", "subset", "path", "sha256"), ITEMS, what)
    _check_columns(scores, ("item_id", "score"), SCORES, what)
    return Evidence(
        model=version.name,
        version=str(version.version),
        tags=dict(version.tags),
        items=items,
        scores=scores,
    )


def _items(registry: Registry, run_id: str, target: Path) -> Path:
    try:
        return registry.download(run_id, ITEMS, target)
    except NotThereError as error:
        try:
            return registry.download(run_id, BEFORE, target)
        except NotThereError:
            raise error from None


def _check_columns(table: pd.DataFrame, columns: tuple[str, ...], path: str, what: str) -> None:
    lacking = [name for name in columns if name not in table.columns]
    if lacking:
        raise InputError(
            f"expected {', '.join(lacking)} in {path} of {what}, found none; register it again"
        )
