"""What a system is to all others: a folder of `flowsight.systems`, a file for each thing it does.

`part("saliency", "train")` imports `systems/saliency/train.py`; nothing registers itself. What all
share (the stages, the bundle, decoding, the command line, the server, the registry) asks the files
for the rest, so a further system is a further folder.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from flowsight.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from flowsight.params.config import Params
    from flowsight.serving.bundle import Bundle
    from flowsight.serving.memory import Limits, Needs
    from flowsight.serving.result import Result, Update


class Folders(dict[str, Path]):
    """Name -> what a stage reads or writes beside its output, as `instances` names it."""

    def __missing__(self, name: str) -> Path:
        option = name.replace("_", "-")
        raise InputError(f"expected --{option} PATH, as dvc.yaml gives it to this stage, got none")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A stage instance of a row and a split: what `train(job)`, `predict(job)` ... work on."""

    system: str
    row_name: str
    split: str
    """Its id."""
    params: Params
    folders: Folders
    out: Path
    """Folder to write into, or, where the stage has several outputs, its first one."""
    scratch_key: str = ""
    """`<stage>/<hash of all that goes into it>`: where a training keeps what it goes on from."""
    log: Callable[[Mapping[str, float], int], None] = lambda measured, epoch: None
    """Called with the metrics of each epoch and its number."""

    @property
    def block(self) -> Any:
        """`systems.<system>` of the parameters."""
        return self.params.system(self.system)

    @property
    def row(self) -> Any:
        """The row.

        Raises:
            InputError: the system has none of the name.
        """
        rows = self.block.rows
        if self.row_name not in rows:
            raise InputError(
                f"no row {self.row_name!r} in systems.{self.system}.rows; rows: {', '.join(rows)}"
            )
        return rows[self.row_name]

    @property
    def start(self) -> Path | None:
        """Folder of the checkpoint that a training goes on from, if it does."""
        return self.folders.get("start")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training ends with."""

    state: Mapping[str, Tensor]
    """On the CPU."""
    history: Sequence[Any]
    """A dataclass an epoch, all of one kind."""


@dataclass(frozen=True)
class Data:
    """What a system's networks are trained on."""

    name: str
    """Of the data set: folder below `data/raw` and `checkpoints`."""
    splits: tuple[str, ...]
    """Ids, the first one being served unless another is asked for."""
    rows: Mapping[str, Any]
    """Its rows in the parameters, each a `System.ROW`."""


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
    rows: Mapping[str, Any]
    """Each a `System.ROW`."""
    device: Any
    """Where to compute."""


class System(Protocol):
    """What a module of this package has."""

    ROW: type
    """Of its rows in the parameters."""
    SUBJECT: str
    """Module of `flowsight.registry.subject` that knows what its test items are."""
    INPUT: str
    """What it looks at, `video` or `image`; also the column of a request that names the file."""
    REQUEST: str
    """Column of a request that asks, as true or false, for what is not always answered."""
    TOP: bool
    """Whether a request may say how many classes it wants (`top`)."""
    OUTPUTS: Mapping[str, str]
    """Columns of a server's answer -> `string`, `double`, `long`, `string[]`, `double[]` or `any`;
    beside `INPUT`, `seconds` and `error`."""
    COLUMNS: tuple[str, ...]
    """Heads of the table that `flowsight predict` prints, after the file."""
    ENDINGS: tuple[str, ...]
    """Of the film or picture that `flowsight predict --overlay` writes."""

    def data(self, params: Params) -> Data:
        """What it is trained on.

        Raises:
            InputError: the parameters have none of it.
        """

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

    def load(
        self, bundle: Bundle, path: Path, *, attention: bool, limits: Limits, update: Update
    ) -> Any:
        """The file, checked, with what is looked at; has `seconds`, the time each part took.

        Args:
            bundle: the system.
            path: of what `INPUT` says.
            attention: see `predict`.
            limits: what is refused.
            update: progress.

        Raises:
            InputError: no such thing, or beyond the limits.
        """

    def predict(
        self,
        bundle: Bundle,
        loaded: Any,
        *,
        attention: bool,
        seconds: dict[str, float],
        update: Update,
    ) -> Result:
        """What it says of a video or an image.

        Args:
            bundle: the system.
            loaded: what `load` returned.
            attention: also what `REQUEST` asks for, and what a film needs.
            seconds: the time each part took is added here.
            update: progress.
        """

    def write_overlay(self, found: Any, path: Path) -> None:
        """Write the film or picture of a prediction.

        Args:
            found: what `predict` returned with `attention=True`.
            path: with one of `ENDINGS`.
        """


def chosen_row(name: str, known: Collection[str], system: str) -> str:
    """What `systems.<system>.serve` names, where it can be served.

    Raises:
        InputError: it cannot.
    """
    if name not in known:
        raise InputError(
            f"expected systems.{system}.serve as one of {', '.join(known)}, got {name!r}; null "
            "chooses by the system's rule"
        )
    return name


def names() -> list[str]:
    """Every system: the folders of `flowsight.systems`."""
    folder = Path(__file__).parent / "systems"
    return sorted(path.parent.name for path in folder.glob("*/__init__.py"))


def part(system: str, verb: str) -> Any:
    """The module `flowsight.systems.<system>.<verb>`.

    Raises:
        InputError: there is no such system; with the nearest name.
    """
    known = names()
    if system not in known:
        close = difflib.get_close_matches(system, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(f"expected a system ({', '.join(known)}), got {system!r}{hint}")
    return importlib.import_module(f"flowsight.systems.{system}.{verb}")


def find(name: str) -> System:
    """What of a system serves.

    Raises:
        InputError: there is no such system.
    """
    return cast(System, part(name, "serve"))
