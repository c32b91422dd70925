"""How well the attention maps find the true actor, beside what chance finds.

Chance is the share of the frame that the actor covers: a random point hits the mask that often, a
uniform map has that share of its energy inside, and a map that marks everything has that IoU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from flowsight.attention import localization
from flowsight.errors import InputError
from flowsight.evaluation.predictions import read_table
from flowsight.progress import track
from flowsight.video import pack

MEASURES = ("pointing_game", "energy_in_mask", "iou", "chance")
COLUMNS = ("row", "split_id", "subset", "num_clips", "num_frames", *MEASURES)

Masks = npt.NDArray[np.bool_]


def read_truth_index(truth: Path) -> dict[str, Path]:
    """Clip id -> file of its ground truth; empty where the data set has none."""
    path = truth / "index.csv"
    if not path.is_file():
        return {}
    table = read_table(path, ("clip_id", "path"))
    return {c: truth / p for c, p in zip(table["clip_id"], table["path"], strict=True)}


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


def measure_clip(maps: Path, masks: Masks, num_frames: int) -> npt.NDArray[np.float64] | None:
    """Measures of at most `num_frames` evenly spaced frames of a clip; see `measure`."""
    count = min(num_frames, len(masks))
    indices = np.unique(np.linspace(0, len(masks) - 1, count).round().astype(int))
    return measure(pack.read_maps(maps, indices.tolist()), masks[indices])


def localization_table(
    rows: Sequence[str],
    splits: Mapping[str, pd.DataFrame],
    *,
    attention: Path,
    truth: Path,
    num_frames: int,
) -> pd.DataFrame:
    """Measures of every row's maps, mean over the clips of each split and subset.

    Args:
        rows: rows that have attention maps.
        splits: split id -> table with clip_id and subset.
        attention: folder with `<row>-<split>/<clip_id>.zip`.
        truth: folder with `index.csv`.
        num_frames: frames scored per clip.

    Returns:
        `COLUMNS`; empty where the data set has no masks. Training clips have Grad-CAM maps made
        with the label; validation and test clips those of the attention network, without label.
    """
    index = read_truth_index(truth)
    if not index:
        return pd.DataFrame(columns=list(COLUMNS))
    jobs = [
        (row, split_id, subset, clip)
        for row in rows
        for split_id, table in splits.items()
        for clip, subset in zip(table["clip_id"], table["subset"], strict=True)
        if clip in index
    ]
    found = []
    for row, split_id, subset, clip in track(jobs, "localisation"):
        masks = read_masks(index[clip])
        if masks is None or not len(masks):
            continue
        values = measure_clip(attention / f"{row}-{split_id}" / f"{clip}.zip", masks, num_frames)
        if values is not None:
            found.append((row, split_id, subset, 1, *values))
    table = pd.DataFrame(found, columns=list(COLUMNS))
    totals = {"num_clips": "sum", "num_frames": "sum"} | dict.fromkeys(MEASURES, "mean")
    keys = ["row", "split_id", "subset"]
    merged = table.groupby(keys, as_index=False, sort=False).agg(totals)
    orders = {"row": list(rows), "split_id": list(splits), "subset": ["train", "val", "test"]}
    merged = merged.sort_values(keys, key=lambda column: column.map(orders[str(column.name)].index))
    return merged.astype({"num_clips": int, "num_frames": int})


def flat_metrics(table: pd.DataFrame) -> dict[str, float]:
    """Test clips only, mean over splits: `localization/<row>/<measure>`."""
    test = table[table["subset"] == "test"]
    return {
        f"localization/{row}/{measure}": float(group[measure].mean())
        for row, group in test.groupby("row", sort=False)
        for measure in MEASURES
    }
