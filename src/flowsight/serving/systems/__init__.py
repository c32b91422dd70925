"""The systems that can be registered, predicted with and served: one module each.

`flowsight.serving.systems.<name>` is the system `<name>`; nothing registers itself. What all share
(the bundle, decoding, the command line, the server, the registry) asks the module for the rest, so
a further system is a further module. A module is light: what loads torch is imported in functions.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from flowsight.errors import InputError

if TYPE_CHECKING:
    from flowsight.config import Params
    from flowsight.rows import RowParams
    from flowsight.serving.bundle import Bundle
    from flowsight.serving.memory import ClipInMemory, Needs
    from flowsight.serving.result import Prediction, Update

DEFAULT = "two_stream"
"""Whose champion predicts where nobody names a model or a system."""


@dataclass(frozen=True)
class Described:
    """What of a trained system is served."""

    own: Mapping[str, Any]
    """The system's entries of `model.json`, beside those that all systems have."""
    rows: tuple[str, ...]
    """Rows of the parameters that the networks are built from."""
    checkpoints: Mapping[str, str]
    """Network's name (its file in the bundle) -> folder of its `model.pt` in the repository."""


@dataclass(frozen=True)
class Source:
    """The repository that a system is taken from."""

    root: Path
    lock: Mapping[str, str] | None
    """Hashes of outputs by `dvc.lock`, to refuse results that are not those; None: any will do."""


@dataclass(frozen=True)
class Shelf:
    """A bundle that is read: where its weights are and what its networks are."""

    folder: Path
    description: Mapping[str, Any]
    """`model.json`."""
    rows: Mapping[str, RowParams]
    device: Any
    """Where to compute."""


class System(Protocol):
    """What a module of this package has."""

    OUTPUTS: Mapping[str, str]
    """Columns of a server's answer -> `string`, `double`, `long`, `string[]`, `double[]` or `any`;
    beside `video`, `num_frames`, `duration_sec`, `seconds`, `attention` and `error`."""
    COLUMNS: tuple[str, ...]
    """Heads of the table that `flowsight predict` prints, after the video."""

    def describe(self, params: Params, split: str, source: Source) -> Described:
        """Which of the system's rows are served; never chosen by what they scored on test clips.

        Raises:
            InputError: the parameters have none, or results are missing or stale.
        """

    def selection(self, description: Mapping[str, Any]) -> dict[str, str]:
        """Column -> value of the rows of `per_split.csv` and `predictions.parquet` that are its
        numbers; the columns, joined, also name its metrics."""

    def tags(self, description: Mapping[str, Any]) -> dict[str, str]:
        """What its versions in the registry are marked with, beside what all are."""

    def restore(self, shelf: Shelf) -> Any:
        """Its networks, in evaluation mode; becomes `Bundle.served`.

        Raises:
            InputError: weights that are missing, were changed, or are of other networks.
        """

    def with_views(self, served: Any, num_views: int | None, num_crops: int | None) -> Any:
        """The same with other views at test time, where they are given.

        Raises:
            InputError: views that cannot be drawn.
        """

    def needs(self, bundle: Bundle, *, attention: bool) -> Needs:
        """What of a video is looked at.

        Args:
            bundle: the system.
            attention: whether the maps of every frame are wanted.

        Raises:
            InputError: maps are wanted and it has none.
        """

    def predict(
        self,
        bundle: Bundle,
        loaded: ClipInMemory,
        *,
        attention: bool,
        seconds: dict[str, float],
        update: Update,
    ) -> Prediction:
        """What it says of a video.

        Args:
            bundle: the system.
            loaded: the video, with what it needs.
            attention: also the maps of every frame.
            seconds: the time each part took is added here.
            update: progress.
        """


def names() -> list[str]:
    """Every system that there is a module of."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find(name: str) -> System:
    """The module of a system.

    Raises:
        InputError: there is none; with the nearest name.
    """
    known = names()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(
            f"expected a system that can be served ({', '.join(known)}), got {name!r}{hint}"
        )
    return cast(System, importlib.import_module(f"{__name__}.{name}"))
