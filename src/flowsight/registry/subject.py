"""What a model is judged on: clips, images, or frames of scenes; one module each.

The registry asks the module for whatever hangs on that: which outputs a registration reads, what
the items are, what each scored, and how a model scores items anew. A score is in [0, 1] and higher
is better, so that one gate judges all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from flowsight import contract
from flowsight.params.config import Params

if TYPE_CHECKING:
    import pandas as pd

    from flowsight.registry.evidence import Evidence
    from flowsight.registry.store import Registry


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How people call the numbers, and which there are."""

    measure: str
    """That the gate compares; `promote.min_measure` is its least value."""
    title: str
    """The measure's name in tables."""
    items: str
    """`clips`, `images` or `frames`."""
    units: str
    """What a bootstrap draws: the items, or blocks of them."""
    tagged: tuple[str, ...]
    """Numbers that a version is marked with and that must be there."""
    kept: tuple[str, ...]
    """Columns of `Subject.per_split` that are logged for each split, where they are there."""


class Subject(Protocol):
    """What a module of this package has."""

    KIND: Kind

    def reads(self, system: str, params: Params) -> list[str]:
        """Outputs of stages that a registration reads, each to be the one of `dvc.lock`."""

    def raw(self, params: Params) -> list[str]:
        """Data sets that it reads beside; a `.dvc` file may track them."""

    def inputs(self, params: Params) -> dict[str, str]:
        """Tag -> output whose hash of DVC a version is marked with."""

    def quality(self, root: Path, params: Params) -> dict[str, str]:
        """Tags data_gate (`passed`, or what is wrong), quarantine_share and `num_<items>`."""

    def per_split(self, results: Path) -> pd.DataFrame:
        """The evaluation's numbers: split_id, the columns of `System.selection`, `Kind.kept`."""

    def items(self, root: Path, params: Params, split: str) -> pd.DataFrame:
        """All items of a split.

        Returns:
            item_id, subset (train, val, test, or another for what is left aside), path (below
            `data_path`), sha256; where an item has one also label, truth and truth_sha256, upright,
            group (items of one group are each other's neighbours by design).
        """

    def scores(self, root: Path, bundle: Mapping[str, Any]) -> pd.DataFrame:
        """What the served row scored.

        Returns:
            item_id, score, and what it comes from: of classes label, predicted and prob_<class>; of
            pixels tp, fp, fn, tn; of frames also group and weight (the share of the score in its
            block's).

        Raises:
            InputError: no predictions of it.
        """

    def anew(
        self, registry: Registry, model: Evidence, other: Evidence, items: pd.DataFrame, root: Path
    ) -> pd.DataFrame:
        """Let a version predict items that it has never scored.

        Args:
            registry: where it is.
            model: the version.
            other: the version whose data set holds the items.
            items: some of its `Evidence.tested`.
            root: the repository with the files.

        Returns:
            The items with `scores`' columns item_id, score (group, weight).

        Raises:
            InputError: a file is not here or is another one, or the model fails.
        """


def of_system(system: str) -> Subject:
    """What a system is judged on.

    Raises:
        InputError: no such system.
    """
    return cast(Subject, contract.part(system, "judge"))


def of_version(model: str, tags: Mapping[str, str]) -> Subject:
    """What a version is judged on; a registered model has its system's name."""
    return of_system(tags.get("system", model))
