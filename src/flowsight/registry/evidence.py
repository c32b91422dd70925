"""What the registry knows of a version: its clips, its predictions, its numbers."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flowsight.errors import InputError
from flowsight.registry.candidate import CLIPS, SCORES
from flowsight.registry.store import Registry

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion

LEARNS = ("train", "val")
"""Weights come from one; epochs and the fusion weight are chosen on the other."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """One version."""

    model: str
    version: str
    tags: Mapping[str, str]
    clips: pd.DataFrame
    """clip_id, subset, label, path, sha256."""
    scores: pd.DataFrame
    """clip_id, label, predicted, prob_<class> of test clips."""

    @property
    def uri(self) -> str:
        """The version, as MLflow names it."""
        return f"models:/{self.model}/{self.version}"

    @property
    def tested(self) -> pd.DataFrame:
        """Its test clips."""
        return self.clips[self.clips["subset"] == "test"]

    @property
    def learnt(self) -> pd.DataFrame:
        """Clips that it has learnt from."""
        return self.clips[self.clips["subset"].isin(LEARNS)]


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
        clips = pd.read_csv(registry.download(version.run_id, CLIPS, Path(name)), dtype=str)
        scores = pd.read_parquet(registry.download(version.run_id, SCORES, Path(name)))
    _check_columns(clips, ("clip_id", "subset", "label", "path", "sha256"), CLIPS, what)
    _check_columns(scores, ("clip_id", "label", "predicted"), SCORES, what)
    return Evidence(
        model=version.name,
        version=str(version.version),
        tags=dict(version.tags),
        clips=clips,
        scores=scores,
    )


def _check_columns(table: pd.DataFrame, columns: tuple[str, ...], path: str, what: str) -> None:
    lacking = [name for name in columns if name not in table.columns]
    if lacking:
        raise InputError(
            f"expected {', '.join(lacking)} in {path} of {what}, found none; register it again"
        )
