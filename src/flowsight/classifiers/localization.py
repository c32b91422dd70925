"""How well the attention maps find the true actor, beside what chance finds.

Chance is the share of the frame that the actor covers: a random point hits the mask that often, a
uniform map has that share of its energy inside, and a map that marks everything has that IoU.

Beside the maps of each row stand those that control rows see: another clip's, which find the actor
only as far as actors stand in the same place, and the constant, which is chance by construction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from flowsight.batches import map_controls
from flowsight.errors import InputError
from flowsight.evaluation.predictions import read_table
from flowsight.metrics import localization
from flowsight.params.config import Params
from flowsight.progress import track
from flowsight.video import pack

if TYPE_CHECKING:
    from flowsight.batches.clips import Clip

MEASURES = ("pointing_game", "energy_in_mask", "iou", "chance")
COLUMNS = ("row", "split_id", "subset", "num_clips", "num_frames", *MEASURES)
DRAWN = "true"
"""What the column `masks` says of masks that somebody drew, or that were rendered."""

Masks = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The maps that a network gets to see."""

    row: str
    """Row that makes them."""
    control: str | None = None
    """`RowParams.map_control`."""


@dataclass(frozen=True)
class _Clip:
    """What shuffling looks at."""

    clip_id: str
    label: int
    subset: str
    num_frames: int
    maps: Path
    map_frames: int | None = None


def read_truth_index(truth: Path) -> dict[str, Path]:
    """Clip id -> file of its ground truth; empty where the data set has none."""
    path = truth / "index.csv"
    if not path.is_file():
        return {}
    table = read_table(path, ("clip_id", "path"))
    return {c: truth / p for c, p in zip(table["clip_id"], table["path"], strict=True)}


def masks_by(truth: Path) -> str:
    """Who says where the actor is: `DRAWN`, or the method that stands in for a person."""
    path = truth / "stand_in.json"
    if not path.is_file():
        return DRAWN
    return str(json.loads(path.read_text(encoding="utf-8"))["masks"])


def masks_of(results: Path) -> str:
    """What `localization.csv` of a system's results says of its masks; see `masks_by`."""
    table = read_table(results / "localization.csv", ("row", "masks"))
    return str(table["masks"].iloc[0]) if len(table) else DRAWN


def read_masks(path: Path) -> Masks | None:
    """Actor masks (T, H, W), or None where this clip's truth has none.

    Raises:
        InputError: the file is missing or broken.
    """
    try:
        with np.load(path) as arrays:
            return arrays["masks"].astype(bool) if "masks" in arrays.files else None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"expected ground truth in {path}, got {error}; import the data again"
        ) from None


def measure(maps: npt.NDArray[np.uint8], masks: Masks) -> npt.NDArray[np.float64] | None:
    """One clip's measures, mean over its frames with a visible actor.

    Args:
        maps: (T, h, w) attention maps as stored.
        masks: (T, H, W) true masks of the same frames.

    Returns:
        (5,) number of frames, then `MEASURES`; None where no frame shows the actor.
    """
    visible = masks.any(axis=(1, 2))
    if not visible.any():
        return None
    height, width = masks.shape[1:]
    full = np.stack([cv2.resize(m.astype(np.float32) / 255, (width, height)) for m in maps])
    full, masks = full[visible], masks[visible]
    values = (
        localization.pointing_game(full, masks),
        localization.energy_in_mask(full, masks),
        localization.iou(full, masks),
        localization.chance(masks),
    )
    return np.array([len(masks), *(value.mean() for value in values)])


def measure_clip(
    maps: Path, masks: Masks, num_frames: int, *, stretch: bool = False
) -> npt.NDArray[np.float64] | None:
    """Measures of at most `num_frames` evenly spaced frames of a clip; see `measure`.

    Args:
        maps: the pack of its maps.
        masks: (T, H, W) true masks.
        num_frames: how many frames are scored.
        stretch: the maps are another clip's: frame by share of the length, as networks read them.
    """
    indices = _spaced(len(masks), num_frames)
    wanted = indices
    if stretch:
        wanted = indices * int(pack.read_meta(maps)["num_maps"]) // len(masks)
    return measure(pack.read_maps(maps, wanted.tolist()), masks[indices])


def measure_constant(masks: Masks, num_frames: int) -> npt.NDArray[np.float64] | None:
    """As `measure_clip`, of a map that says the same everywhere."""
    indices = _spaced(len(masks), num_frames)
    return measure(np.full((len(indices), 1, 1), 255, np.uint8), masks[indices])


def _spaced(count: int, wanted: int) -> npt.NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).round().astype(np.int64))


def shown_maps(rows: Sequence[str], params: Params) -> dict[str, Shown]:
    """Whose maps are scored, by name: rows that make maps, and control rows, by what they see.

    Args:
        rows: rows that classify clips, in order.
        params: all parameters.
    """
    named = {name: params.row(name) for name in rows}
    sources = dict.fromkeys(row.start.maps for row in named.values() if row.start.maps is not None)
    own = {source: Shown(row=source) for source in sources}
    controls = {
        name: Shown(row=row.start.maps, control=row.start.map_control)
        for name, row in named.items()
        if row.start.maps is not None and row.start.map_control is not None
    }
    return own | controls


def _lenders(
    table: pd.DataFrame, labels: Mapping[str, int], maps: Shown
) -> list[tuple[str, str, str]]:
    """(clip, subset, the clip whose maps it gets), in the table's order."""
    pairs = list(zip(table["clip_id"], table["subset"], strict=True))
    if maps.control != "shuffled":
        return [(clip, subset, clip) for clip, subset in pairs]
    clips = [_Clip(clip, labels[clip], subset, 1, Path(clip)) for clip, subset in pairs]
    # the very order in which training and prediction shuffle; `Clip` itself would load torch
    lent = map_controls.shuffle(cast("list[Clip]", clips))
    return [(clip.clip_id, clip.subset, str(clip.maps)) for clip in lent]


def localization_table(
    shown: Mapping[str, Shown],
    splits: Mapping[str, pd.DataFrame],
    labels: Mapping[str, int],
    *,
    attention: Path,
    truth: Path,
    num_frames: int,
) -> pd.DataFrame:
    """Measures of every row's maps, mean over the clips of each split and subset.

    Args:
        shown: row -> the maps that are scored under its name.
        splits: split id -> table with clip_id and subset.
        labels: clip id -> index of its class, by which maps were shuffled.
        attention: folder with `<row>-<split>/<clip_id>.zip`.
        truth: folder with `index.csv`.
        num_frames: frames scored per clip.

    Returns:
        `COLUMNS` and `masks` (see `masks_by`); empty where the data set has no masks. Training
        clips have Grad-CAM maps made with the label; validation and test clips those of the
        attention network, without label.
    """
    index = read_truth_index(truth)
    if not index:
        return pd.DataFrame(columns=[*COLUMNS, "masks"])
    jobs = [
        (row, maps, split_id, subset, clip, lender)
        for row, maps in shown.items()
        for split_id, table in splits.items()
        for clip, subset, lender in _lenders(table, labels, maps)
        if clip in index
    ]
    found = []
    for row, maps, split_id, subset, clip, lender in track(jobs, "localisation"):
        masks = read_masks(index[clip])
        if masks is None or not len(masks):
            continue
        path = attention / f"{maps.row}-{split_id}" / f"{lender}.zip"
        if maps.control == "constant":
            values = measure_constant(masks, num_frames)
        else:
            values = measure_clip(path, masks, num_frames, stretch=maps.control == "shuffled")
        if values is not None:
            found.append((row, split_id, subset, 1, *values))
    table = pd.DataFrame(found, columns=list(COLUMNS))
    totals = {"num_clips": "sum", "num_frames": "sum"} | dict.fromkeys(MEASURES, "mean")
    keys = ["row", "split_id", "subset"]
    merged = table.groupby(keys, as_index=False, sort=False).agg(totals)
    orders = {"row": list(shown), "split_id": list(splits), "subset": ["train", "val", "test"]}
    merged = merged.sort_values(keys, key=lambda column: column.map(orders[str(column.name)].index))
    return merged.astype({"num_clips": int, "num_frames": int}).assign(masks=masks_by(truth))


def flat_metrics(table: pd.DataFrame) -> dict[str, float]:
    """Test clips only, mean over splits: `localization/<row>/<measure>`."""
    test = table[table["subset"] == "test"]
    return {
        f"localization/{row}/{measure}": float(group[measure].mean())
        for row, group in test.groupby("row", sort=False)
        for measure in MEASURES
    }
