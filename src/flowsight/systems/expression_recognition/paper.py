"""Printed accuracies beside ours, with why they may or may not be compared."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from flowsight.evaluation import published
from flowsight.evaluation.predictions import records
from flowsight.evaluation.printed import Printed
from flowsight.systems.expression_recognition.params import SYSTEM, Block

if TYPE_CHECKING:
    from flowsight.params.config import Params

PRINTED_NAMES = {"fer2013": "FER2013", "affectnet": "AffectNet"}
FULL_TEST = {"FER2013": 3589, "AffectNet": 4000}
"""Pictures of the official tests."""
METHODS = {"VGG": "vgg_fer", "PSR (VGG-16)": "vgg16"}
"""Printed method -> our backbone of the same form."""


def paper_table(scores: pd.DataFrame, params: Params, status: pd.DataFrame) -> pd.DataFrame:
    """Published rows with our accuracy, in %, where a row of ours stands for them.

    Args:
        scores: per-split table with row, split_id, num_images and accuracy.
        params: which data, recipe and rows ran.
        status: `status.csv`.

    Returns:
        The published columns, then `ours` (empty: nothing stands for the row), `comparable`, `why`.
    """
    block = params.system(SYSTEM)
    table = published.read(SYSTEM)
    ours, comparable, why = [], [], []
    for printed in records(table):
        name, value = row_of(printed["method"], block), math.nan
        reasons = _not_run(printed, name, block)
        if not reasons:
            mine = scores[scores["row"] == name]
            value = round(100 * float(mine["accuracy"].mean()), 2)
            reasons = _differences(printed, str(name), params, mine, status)
        ours.append(value)
        comparable.append(not reasons)
        why.append("; ".join(reasons))
    return table.assign(ours=ours, comparable=comparable, why=why)


def row_of(method: str, block: Block) -> str | None:
    """The last row whose backbone is the method's: of a transfer, step 2."""
    wanted = METHODS.get(method)
    found = [name for name, row in block.rows.items() if row.network.backbone == wanted]
    return found[-1] if found else None


def _not_run(printed: Printed, name: str | None, block: Block) -> list[str]:
    here = PRINTED_NAMES.get(block.data.name)
    if name is None:
        return [f"no row has the network of {printed['method']}"]
    if here is not None and here != printed["dataset"]:
        return [f"this run is on {here}"]
    return []


def _differences(
    printed: Printed, name: str, params: Params, scores: pd.DataFrame, status: pd.DataFrame
) -> list[str]:
    block, reasons = params.system(SYSTEM), []
    if block.data.name not in PRINTED_NAMES:
        return [f"ours is measured on {block.data.name}, the paper's on {printed['dataset']}"]
    full = FULL_TEST[printed["dataset"]]
    if (scores["num_images"] != full).any():
        reasons.append(f"{int(scores['num_images'].iloc[0])} test pictures, not the {full}")
    refused = int((status["status"] == "quarantined").sum())
    if refused:
        reasons.append(f"{refused} pictures are quarantined")
    if params.recipe != "paper":
        reasons.append(f"recipe {params.recipe}, not the paper's")
    if printed["split"] == "not_stated":
        reasons.append("which pictures it was tested on is not said")
    if "PSR" in printed["method"]:
        reasons.append(f"{name} is plain {block.rows[name].network.backbone}, without PSR's parts")
    return reasons
