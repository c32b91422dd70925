"""The 3D residual attention paper's printed tables beside ours, with why they may be compared."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from flowsight.evaluation.printed import OFFICIAL_SPLITS, Printed, beside_printed
from flowsight.params.config import Params
from flowsight.systems.residual3d.params import SYSTEM

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
    return beside_printed(
        "residual3d",
        params=params,
        counts=counts,
        kind="row",
        stands_for=lambda printed: row_of(printed["method"], params),
        scores=lambda _, name: scores[scores["row"] == name],
        differences=lambda printed, name: _differences(printed, name, params),
    )


def row_of(method: str, params: Params) -> str | None:
    """The first RGB row whose network is the printed method's; None: there is none."""
    family, attended = _METHODS.get(method, ("", False))
    for name, row in params.system(SYSTEM).rows.items():
        own = row.network.backbone.partition("_")[0]
        has = row.network.attention is not None
        if row.input.clip_length and (own, has, row.input.modality) == (family, attended, "rgb"):
            return name
    return None


def _differences(printed: Printed, name: str, params: Params) -> list[str]:
    row, reasons = params.system(SYSTEM).rows[name], []
    if printed["method"] == "ResNet3D-50" and row.network.backbone != "resnet3d_50":
        reasons.append(f"backbone {row.network.backbone}, not resnet3d_50")
    if (row.input.fps, row.input.crop_px) != (_FPS, _CROP_PX):
        reasons.append("other frame rate or crop than 16 per second and 224 px")
    if printed["split"] == "mean" and set(params.splits.ids) != set(OFFICIAL_SPLITS):
        reasons.append(f"mean of three splits, ours of {', '.join(params.splits.ids)}")
    if str(printed["table"]) == "2" and row.start.weights is None:
        reasons.append(
            "table 2 cannot be training from scratch: the same model prints 72.8 in table 1"
        )
    return reasons
