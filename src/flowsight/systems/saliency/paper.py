"""The slimmed-FCN paper's printed tables 3 and 4 beside ours, with why they may be compared."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from flowsight.evaluation import published
from flowsight.evaluation.predictions import records
from flowsight.evaluation.printed import Printed
from flowsight.params.config import Params
from flowsight.systems.saliency.params import SYSTEM

PRINTED_NAMES = {"msra10k": "MSRA10K", "dut_omron": "DUT-OMRON"}
_TIME = "times hang on the machine and stand in docs/performance.md (benchmarks/saliency.py)"


def paper_table(scores: pd.DataFrame, params: Params, counts: Mapping[str, int]) -> pd.DataFrame:
    """Published rows with our F of the argmax map where we have one.

    Args:
        scores: per-split table with row, split_id and f_beta.
        params: which images, recipe and rows ran.
        counts: pairs by status.

    Returns:
        The published columns, then `ours` (empty: nothing of ours stands for this row),
        `comparable` and `why`.
    """
    block = params.system(SYSTEM)
    table = published.read("saliency")
    ours, comparable, why = [], [], []
    for printed in records(table):
        name = block.evaluate.experiments.get(printed["item"])
        value, reasons = math.nan, _not_run(printed, name, params.images.name)
        if not reasons:
            value = round(float(scores.loc[scores["row"] == name, "f_beta"].mean()), 4)
            reasons = _differences(printed, str(name), params, counts)
        ours.append(value)
        comparable.append(not reasons)
        why.append("; ".join(reasons))
    return table.assign(ours=ours, comparable=comparable, why=why)


def _not_run(printed: Printed, name: str | None, dataset: str) -> list[str]:
    here = PRINTED_NAMES.get(dataset)
    if name is None:
        return [f"no row stands for experiment {printed['item']}"]
    if here is not None and here != printed["dataset"]:
        return [f"this run is on {here}"]
    return [_TIME] if printed["metric"] == "detection_time" else []


def _differences(
    printed: Printed, name: str, params: Params, counts: Mapping[str, int]
) -> list[str]:
    block = params.system(SYSTEM)
    row, reasons = block.rows[name], []
    if params.images.name not in PRINTED_NAMES:
        reasons.append(
            f"ours is measured on {params.images.name}, the paper's on {printed['dataset']}"
        )
    network = row.network
    if (network.backbone, network.width, network.border) != ("vgg16", 64, "published"):
        reasons.append(f"network {network.backbone} of width {network.width}, not FCN-8s on vgg16")
    if row.start.weights is None:
        reasons.append("trained from scratch, not from ImageNet weights")
    if params.images.name in PRINTED_NAMES and params.recipe != "paper":
        reasons.append(f"recipe {params.recipe}, not the paper's")
    lost = counts.get("absent", 0) + counts.get("quarantined", 0)
    if params.images.name in PRINTED_NAMES and lost:
        reasons.append(f"{lost} of {lost + counts.get('ok', 0)} pairs are absent or quarantined")
    if params.images.name in PRINTED_NAMES:
        reasons.append("the paper does not say which images it tests on")
    return reasons
