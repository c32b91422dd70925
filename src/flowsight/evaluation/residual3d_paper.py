"""The 3D residual attention paper's printed tables beside ours, with why they may be compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from flowsight import published
from flowsight.config import Params
from flowsight.evaluation.paper import OFFICIAL_SPLITS, PRINTED_NAMES
from flowsight.evaluation.predictions import records

# printed method -> (family, with attention)
_METHODS = {
    "ResNet3D-50": ("resnet3d", False),
    "ResNet3D": ("resnet3d", False),
    "DenseNet3D": ("densenet3d", False),
    "C3D": ("c3d", False),
    "Residual attention (proposed)": ("resnet3d", True),
}
_FPS, _CROP_PX = 16.0, 224


def paper_table(scores: pd.DataFrame, params: Params, counts: Mapping[str, int]) -> pd.DataFrame:
    """Published rows with our number (accuracy of videos in %) where we have one.

    Args:
        scores: per-split table with row, split_id and top1.
        params: which data set, recipe and rows ran.
        counts: clips by status (`ok`, `quarantined`, `absent`).

    Returns:
        The published columns, then `ours` (empty: nothing of ours stands for this row),
        `comparable` and `why`.
    """
    table = published.read("residual_attention_3d")
    ours: list[float] = []
    comparable, why = [], []
    for printed in records(table):
        name = row_of(printed["method"], params)
        reasons = _missing(printed, name, params)
        ours.append(math.nan if reasons or name is None else _ours(printed, name, scores, params))
        if not reasons and name is not None:
            reasons = _differences(printed, name, params, counts)
        comparable.append(not reasons)
        why.append("; ".join(reasons))
    return table.assign(ours=ours, comparable=comparable, why=why)


def row_of(method: str, params: Params) -> str | None:
    """The first RGB row whose network is the printed method's; None: there is none."""
    family, attended = _METHODS.get(method, ("", False))
    for name, row in params.rows.items():
        own = row.network.backbone.partition("_")[0]
        has = row.network.attention is not None
        if row.input.clip_length and (own, has, row.input.modality) == (family, attended, "rgb"):
            return name
    return None


def _missing(printed: Mapping[str, Any], name: str | None, params: Params) -> list[str]:
    here = PRINTED_NAMES.get(params.dataset.name)
    if name is None:
        return [f"no row in the parameters stands for {printed['method']}"]
    if here is not None and here != printed["dataset"]:
        return [f"this run is on {here}"]
    if (
        here is not None
        and printed["split"].isdigit()
        and printed["split"] not in params.splits.ids
    ):
        return [f"split {printed['split']} was not run"]
    return []


def _ours(printed: Mapping[str, Any], name: str, scores: pd.DataFrame, params: Params) -> float:
    mine = scores[scores["row"] == name]
    if params.dataset.name in PRINTED_NAMES and printed["split"].isdigit():
        mine = mine[mine["split_id"] == printed["split"]]
    return round(100 * float(mine["top1"].mean()), 2)


def _differences(
    printed: Mapping[str, Any], name: str, params: Params, counts: Mapping[str, int]
) -> list[str]:
    if params.dataset.name not in PRINTED_NAMES:
        return [f"ours is measured on {params.dataset.name}, the paper's on {printed['dataset']}"]
    row, reasons = params.rows[name], []
    lost = counts.get("absent", 0) + counts.get("quarantined", 0)
    if lost:
        listed = lost + counts.get("ok", 0)
        reasons.append(f"{lost} of {listed} official clips are absent or quarantined")
    if params.recipe != "paper":
        reasons.append(f"recipe {params.recipe}, not the paper's")
    if printed["method"] == "ResNet3D-50" and row.network.backbone != "resnet3d_50":
        reasons.append(f"backbone {row.network.backbone}, not resnet3d_50")
    if (row.input.fps, row.input.crop_px) != (_FPS, _CROP_PX):
        reasons.append("other frame rate or crop than 16 per second and 224 px")
    if printed["split"] == "mean" and set(params.splits.ids) != set(OFFICIAL_SPLITS):
        reasons.append(f"mean of three splits, ours of {', '.join(params.splits.ids)}")
    if str(printed["table"]) == "2" and row.network.weights is None:
        reasons.append(
            "table 2 cannot be training from scratch: the same model prints 72.8 in table 1"
        )
    return reasons
