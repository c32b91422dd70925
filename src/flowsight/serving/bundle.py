"""A trained system as one folder: `model.json` and the weights of its networks.

The folder holds all that a prediction needs beside the package's code, so it can be registered,
copied and served without the repository. The same checkpoints and parameters give the same bytes.
Which networks there are and how they are put together is each system's own (`contract`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from flowsight import contract, files
from flowsight.contract import Shelf, Source, System
from flowsight.errors import InputError
from flowsight.params import config, schema
from flowsight.params.config import FlowParams, FramesParams, Params
from flowsight.serving import format1, origin
from flowsight.serving.restoring import MODEL

FORMAT = 2


@dataclass(frozen=True)
class Bundle:
    """A system that is ready to predict."""

    description: dict[str, Any]
    """`model.json`."""
    classes: tuple[str, ...]
    """Of systems over clips."""
    threads: int
    """CPU threads of torch that the pipeline predicts with; others may change the last bits."""
    frames: FramesParams | None
    flow: FlowParams | None
    """How clips are stored; None for systems over other things."""
    served: Any
    """The networks, as the system's own module has them."""

    @property
    def system(self) -> System:
        """The module that knows what to do with the networks."""
        return contract.find(self.description["system"])


def write_bundle(
    system: str,
    out: Path,
    *,
    root: Path = Path(),
    split_id: str | None = None,
    check_lock: bool = True,
) -> dict[str, Any]:
    """Gather a trained system of the working tree into a folder.

    Args:
        system: one of `systems.names()`.
        out: folder to make or replace.
        root: of the repository.
        split_id: whose checkpoints; None: the first of `splits.ids`.
        check_lock: refuse checkpoints and results that are not the ones `dvc.lock` knows.

    Returns:
        What `model.json` says: format, system, dataset, recipe, split, threads, rows, files
        (network's name -> file, path, md5, sha256, stage_md5), and the system's own. Over clips:
        classes, frames, flow.

    Raises:
        InputError: another system, no such split, a missing or stale checkpoint or result.
    """
    root, out = Path(root), Path(out)
    params = config.load(root / "params.yaml")
    description, checkpoints = _describe(system, params, root, split_id, check_lock)
    with files.atomic_dir(out) as folder:
        for row, checkpoint in checkpoints.items():
            shutil.copyfile(root / checkpoint / "model.pt", folder / f"{row}.pt")
        files.write_json(description, folder / MODEL)
    # as it will be read: tuples become lists
    plain: dict[str, Any] = json.loads((out / MODEL).read_text(encoding="utf-8"))
    return plain


def _describe(
    system: str, params: Params, root: Path, split_id: str | None, check_lock: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """What `model.json` says, and the folder of each checkpoint."""
    own = contract.find(system)
    data = own.data(params)
    split = _chosen_split(data.splits, split_id)
    lock = origin.locked_outs(root / "dvc.lock")
    source = Source(root, lock if check_lock else None)
    described = own.describe(params, split, source)
    description = {
        "format": FORMAT,
        "system": system,
        "dataset": data.name,
        "recipe": params.recipe,
        "split": split,
        "threads": params.threads,
        **described.own,
        "rows": {row: asdict(data.rows[row]) for row in described.rows},
        "files": {
            name: {"file": f"{name}.pt", **origin.describe(root, folder, lock, check=check_lock)}
            for name, folder in described.checkpoints.items()
        },
    }
    return description, dict(described.checkpoints)


def _chosen_split(known: Sequence[str], split_id: str | None) -> str:
    if split_id is None:
        return known[0]
    if split_id not in known:
        raise InputError(f"expected a split of {', '.join(known)}, got {split_id!r}")
    return split_id


def load_bundle(folder: Path | str, *, device: str | None = None) -> Bundle:
    """Read a bundle and build its networks.

    Args:
        folder: what `write_bundle` made.
        device: where to compute; None: a GPU if there is one.

    Raises:
        InputError: not a bundle, one of another format or of an unknown system, a file that is
            missing or was changed, or weights of other networks.
    """
    import torch

    folder = Path(folder)
    description = _read(folder)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        system = contract.find(description["system"])
        rows: dict[str, Any] = {
            name: schema.read(system.ROW, values, f"rows.{name}")
            for name, values in description["rows"].items()
        }
        shelf = Shelf(folder, description, rows, where)
        return Bundle(
            description=description,
            classes=tuple(description.get("classes", ())),
            threads=int(description["threads"]),
            frames=_block(FramesParams, description, "frames"),
            flow=_block(FlowParams, description, "flow"),
            served=system.restore(shelf),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"expected a whole description in {folder / MODEL}, got {type(error).__name__} {error};"
            " write the bundle again"
        ) from None


Block = TypeVar("Block")


def _block(kind: type[Block], description: Mapping[str, Any], name: str) -> Block | None:
    return schema.read(kind, description[name], name) if name in description else None


def _read(folder: Path) -> dict[str, Any]:
    path = folder / MODEL
    if not path.is_file():
        raise InputError(f"expected a model in {folder}, found no {MODEL}")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"expected JSON in {path}, got {error}") from None
    found = description.get("format") if isinstance(description, dict) else description
    if found == 1:
        return format1.read(description)
    if found != FORMAT or not isinstance(description, dict):
        raise InputError(
            f"expected a model of format {FORMAT} or 1 in {path}, got {found!r}; "
            "use the flowsight version that wrote it"
        )
    return description
