"""The background subtraction paper's printed table beside ours; none of it may be compared."""

from __future__ import annotations

import math

import pandas as pd

from flowsight.evaluation import published
from flowsight.evaluation.predictions import records
from flowsight.evaluation.printed import Printed
from flowsight.params.config import Params
from flowsight.systems.background.params import SYSTEM, SceneRowParams

PAPER = "background"
_PROPOSED = "proposed"
_WIDTHS = ((30, 30, 50), (20, 20, 20), (30, 30, 10))


def paper_table(table: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Published rows with our number on the second half of the truth where we have one.

    Args:
        table: of `background.video_table`.
        params: which videos, recipe and rows ran.

    Returns:
        The published columns, then `ours` (empty: nothing of ours stands for this row),
        `comparable` (never: the paper does not say which frames it tests) and `why`.
    """
    printed = published.read(PAPER)
    name = row_of(params)
    own = table[(table["method"] == name) & table["seen"]]
    ours, why = [], []
    for row in records(printed):
        value, reasons = _ours(row, own, params, name)
        ours.append(value)
        why.append("; ".join(reasons))
    return printed.assign(ours=ours, comparable=False, why=why)


def row_of(params: Params) -> str | None:
    """The first row that sees the frames only, as the paper's does; None: there is none."""
    rows = params.system(SYSTEM).rows
    return next((n for n, row in rows.items() if not row.input.background_frames), None)


def _ours(
    printed: Printed, own: pd.DataFrame, params: Params, name: str | None
) -> tuple[float, list[str]]:
    if printed["method"] != _PROPOSED or name is None:
        return math.nan, [f"no row in the parameters stands for {printed['method']}"]
    scenes = params.scenes
    of_paper = scenes.name == "cdnet2012"
    if of_paper:
        own = own[own["video_id"] == f"baseline/{printed['item']}"]
        if own.empty:
            return math.nan, [f"no network of this run saw baseline/{printed['item']}"]
    value, everywhere = (
        float(own.loc[own["part"] == part, str(printed["metric"])].to_numpy().mean())
        for part in ("second_half", "all")
    )
    if not of_paper:
        videos = ", ".join(scenes.videos)
        return round(value, 4), [f"ours is the mean over {videos} of {scenes.name}, not CDnet 2012"]
    reasons = [
        "the paper does not say which frames it tests; ours is of the second half of the truth "
        f"(all scored frames: {everywhere:.4f})"
    ]
    return round(value, 4), reasons + _differences(params.row(name), params.recipe)


def _differences(row: SceneRowParams, recipe: str) -> list[str]:
    network, reasons = row.network, []
    if (network.lstm_units, network.gru_units, network.filters) != _WIDTHS:
        reasons.append("other widths than the paper's")
    if network.dropout != 0.25:
        reasons.append(f"dropout {network.dropout:g}, not 0.25")
    if row.input.colour:
        reasons.append("colour, not grey levels")
    if row.input.pixel_stride != 2:
        reasons.append(f"pixel stride {row.input.pixel_stride} in training, not 2")
    if recipe != "paper":
        reasons.append(f"recipe {recipe}, not the paper's")
    return reasons
