"""A trained system as one folder: `model.json` and the weights of its networks.

The folder holds all that a prediction needs beside the package's code, so it can be registered,
copied and served without the repository. The same checkpoints and parameters give the same bytes.

A served `two_stream` model is six networks: phase 1, attention and phase 2 of each stream.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsight import config, files, schema
from flowsight.config import FlowParams, FramesParams, FusionParams, Params
from flowsight.errors import InputError
from flowsight.rows import RowParams
from flowsight.serving import origin
from flowsight.serving.origin import Weight

if TYPE_CHECKING:
    from torch import Tensor, nn

    from flowsight.attention.attention_net import AttentionNetwork

MODEL = "model.json"
FORMAT = 1
SYSTEM = "two_stream"
STREAMS = ("spatial", "temporal")


@dataclass(frozen=True)
class ServedStream:
    """One stream's networks, in evaluation mode, on one device."""

    row: RowParams
    """Of phase 2: what is scored."""
    phase1_row: RowParams
    """Of phase 1: what attention is extracted from."""
    phase1: nn.Module
    attention: AttentionNetwork
    phase2: nn.Module


@dataclass(frozen=True)
class Bundle:
    """A system that is ready to predict."""

    description: dict[str, Any]
    """`model.json`."""
    classes: tuple[str, ...]
    threads: int
    """CPU threads of torch that the pipeline predicts with; others may change the last bits."""
    frames: FramesParams
    flow: FlowParams
    weight: float
    """Of the spatial stream's probabilities in the fusion."""
    streams: dict[str, ServedStream]
    """`spatial` and `temporal`."""


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
        system: `two_stream`.
        out: folder to make or replace.
        root: of the repository.
        split_id: whose checkpoints; None: the first of `splits.ids`.
        check_lock: refuse checkpoints and results that are not the ones `dvc.lock` knows.

    Returns:
        What `model.json` says: format, system, dataset, recipe, split, classes, threads, frames,
        flow, attention, fusion (name, method, value, source), streams (stream -> its phase-2
        row), rows and files (row or `attention-<row>` -> file, path, md5, sha256, stage_md5).

    Raises:
        InputError: another system, no such split, a missing or stale checkpoint or result.
    """
    if system != SYSTEM:
        raise InputError(
            f"expected the system {SYSTEM}, the only one that can be served, got {system!r}"
        )
    root, out = Path(root), Path(out)
    params = config.load(root / "params.yaml")
    split = _chosen_split(params, split_id)
    name, fusion = served_fusion(params, system)
    rows = {row: params.row(row) for row in _rows_of(fusion, params)}
    checkpoints = _checkpoints(params, fusion, split)
    lock = origin.locked_outs(root / "dvc.lock")
    description = {
        "format": FORMAT,
        "system": system,
        "dataset": params.dataset.name,
        "recipe": params.recipe,
        "split": split,
        "classes": origin.read_classes(root / "data/manifests" / params.dataset.name),
        "threads": params.threads,
        "frames": asdict(params.frames),
        "flow": asdict(params.flow),
        "attention": {"hidden_channels": params.attention.hidden_channels},
        "fusion": {"name": name, "method": fusion.method}
        | asdict(_weight(root, system, name, split, params, lock if check_lock else None)),
        "streams": {stream: getattr(fusion, stream) for stream in STREAMS},
        "rows": {row: asdict(values) for row, values in rows.items()},
        "files": {
            row: {"file": f"{row}.pt", **origin.describe(root, folder, lock, check=check_lock)}
            for row, folder in checkpoints.items()
        },
    }
    with files.atomic_dir(out) as folder:
        for row, checkpoint in checkpoints.items():
            shutil.copyfile(root / checkpoint / "model.pt", folder / f"{row}.pt")
        files.write_json(description, folder / MODEL)
    # as it will be read: tuples become lists
    plain: dict[str, Any] = json.loads((out / MODEL).read_text(encoding="utf-8"))
    return plain


def served_fusion(params: Params, system: str) -> tuple[str, FusionParams]:
    """The fusion that is served: the system's last one whose rows use the other stream's maps.

    Raises:
        InputError: there is none.
    """
    found = [
        (name, pair)
        for name, pair in params.evaluate.fusions.items()
        for rows in [(params.row(pair.spatial), params.row(pair.temporal))]
        if all(row.system == system and row.maps is not None for row in rows)
    ]
    if not found:
        raise InputError(
            f"expected a fusion of two rows of {system} with `maps` in evaluate.fusions, got none"
        )
    return found[-1]


def _chosen_split(params: Params, split_id: str | None) -> str:
    if split_id is None:
        return params.splits.ids[0]
    if split_id not in params.splits.ids:
        known = ", ".join(params.splits.ids)
        raise InputError(f"expected a split of splits.ids ({known}), got {split_id!r}")
    return split_id


def _rows_of(fusion: FusionParams, params: Params) -> list[str]:
    attended = [fusion.spatial, fusion.temporal]
    return [str(params.row(row).init) for row in attended] + attended


def _checkpoints(params: Params, fusion: FusionParams, split: str) -> dict[str, str]:
    """File's name in the bundle -> the checkpoint's folder, relative to the repository."""
    first, second = (params.row(getattr(fusion, stream)) for stream in STREAMS)
    if (first.maps, second.maps) != (second.init, first.init):
        raise InputError(
            f"expected rows {fusion.spatial} and {fusion.temporal} to use the maps of each "
            f"other's first phase ({second.init}, {first.init}), got {first.maps}, {second.maps}"
        )
    base = f"checkpoints/{params.dataset.name}"
    phase1 = [str(first.init), str(second.init)]
    names = [*phase1, *(f"attention-{row}" for row in phase1), fusion.spatial, fusion.temporal]
    return {name: f"{base}/{name}-{split}" for name in names}


def _weight(
    root: Path,
    system: str,
    fusion: str,
    split: str,
    params: Params,
    lock: Mapping[str, str] | None,
) -> Weight:
    results = f"results/{system}"
    if lock is not None:
        origin.check_fresh(root, results, lock)
    table = root / results / "per_split.csv"
    return origin.read_weight(table, fusion, split, params.evaluate.fusion_steps)


def load_bundle(folder: Path | str, *, device: str | None = None) -> Bundle:
    """Read a bundle and build its networks.

    Args:
        folder: what `write_bundle` made.
        device: where to compute; None: a GPU if there is one.

    Raises:
        InputError: not a bundle, one of another format, a file that is missing or was changed,
            or weights of other networks.
    """
    import torch

    folder = Path(folder)
    description = _read(folder)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        rows = {
            name: schema.read(RowParams, values, f"rows.{name}")
            for name, values in description["rows"].items()
        }
        return Bundle(
            description=description,
            classes=tuple(description["classes"]),
            threads=int(description["threads"]),
            frames=schema.read(FramesParams, description["frames"], "frames"),
            flow=schema.read(FlowParams, description["flow"], "flow"),
            weight=_share(description["fusion"]["value"]),
            streams={
                stream: _stream(folder, description, rows, description["streams"][stream], where)
                for stream in STREAMS
            },
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"expected a whole description in {folder / MODEL}, got {type(error).__name__} {error};"
            " write the bundle again"
        ) from None


def _read(folder: Path) -> dict[str, Any]:
    path = folder / MODEL
    if not path.is_file():
        raise InputError(f"expected a model in {folder}, found no {MODEL}")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"expected JSON in {path}, got {error}") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        found = description.get("format") if isinstance(description, dict) else description
        raise InputError(
            f"expected a model of format {FORMAT} in {path}, got {found!r}; "
            "use the flowsight version that wrote it"
        )
    return description


def _share(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"fusion weight {value}")
    return float(value)


def _stream(
    folder: Path,
    description: Mapping[str, Any],
    rows: Mapping[str, RowParams],
    name: str,
    device: Any,
) -> ServedStream:
    import torch

    row = rows[name]
    before = str(row.init)
    num_classes = len(description["classes"])
    # memory formats as the pipeline has them: others may change the last bits
    phase1 = _network(folder, description, rows[before], before, num_classes)
    phase2 = _network(folder, description, row, name, num_classes)
    return ServedStream(
        row=row,
        phase1_row=rows[before],
        phase1=phase1.to(device).eval(),
        attention=_attention(folder, description, before).to(device).eval(),
        phase2=phase2.to(device).to(memory_format=torch.channels_last).eval(),
    )


def _network(
    folder: Path, description: Mapping[str, Any], row: RowParams, name: str, num_classes: int
) -> nn.Module:
    from flowsight import networks

    network = networks.build(row, num_classes)
    _restore(network, _checked_state(folder, description, name), folder / f"{name}.pt")
    return network


def _attention(folder: Path, description: Mapping[str, Any], name: str) -> AttentionNetwork:
    from flowsight.attention import attention_net

    name = f"attention-{name}"
    state = _checked_state(folder, description, name)
    firsts = [state[key] for key in state if key.endswith(".0.weight")]
    if not firsts or any(weight.ndim != 4 for weight in firsts):
        raise InputError(
            f"expected an attention network in {folder / f'{name}.pt'}, got other weights"
        )
    network = attention_net.build(
        in_channels=[weight.shape[1] for weight in firsts],
        hidden_channels=description["attention"]["hidden_channels"],
    )
    _restore(network, state, folder / f"{name}.pt")
    return network


def _checked_state(folder: Path, description: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    from flowsight import checkpoint

    listed = description["files"][name]
    path = folder / Path(listed["file"]).name  # never beside the bundle
    state = checkpoint.load(path)
    if files.sha256(path) != listed["sha256"]:
        raise InputError(
            f"expected the weights that {folder / MODEL} lists in {path}, got others; "
            "write the bundle again"
        )
    return state


def _restore(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    from flowsight import checkpoint

    problem = checkpoint.differences(network.state_dict(), state)
    if problem:
        raise InputError(f"expected the weights of its row in {path}, got {problem}")
    network.load_state_dict(state)
