"""A paper's printed numbers beside ours, each row saying whether they may be compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from flowsight.evaluation import published
from flowsight.evaluation.predictions import records
from flowsight.params.config import Params

PRINTED_NAMES = {"ucf101": "UCF-101", "hmdb51": "HMDB-51"}
OFFICIAL_SPLITS = ("1", "2", "3")
Printed = Mapping[str, Any]


def beside_printed(
    paper: str,
    *,
    params: Params,
    counts: Mapping[str, int],
    kind: str,
    stands_for: Callable[[Printed], str | None],
    scores: Callable[[Printed, str], pd.DataFrame],
    differences: Callable[[Printed, str], list[str]],
) -> pd.DataFrame:
    """Published rows with our number (accuracy in %) where we have one.

    Args:
        paper: name of the published table.
        params: which data set, recipe and splits ran.
        counts: clips by status (`ok`, `quarantined`, `absent`).
        kind: what stands for a method, in a word (`row`, `fusion`).
        stands_for: which of ours stands for a printed row; None: none does.
        scores: its accuracies, one row a split with split_id and top1 in [0, 1].
        differences: what else than clips and recipe differs from this paper.

    Returns:
        The published columns, then `ours` (empty: nothing of ours stands for this row),
        `comparable` and `why`.
    """
    table = published.read(paper)
    ours: list[float] = []
    comparable, why = [], []
    for printed in records(table):
        name, value = stands_for(printed), math.nan
        if name is None:
            reasons = [f"no {kind} in the parameters stands for {printed['method']}"]
        else:
            reasons = _not_run(printed, params)
        if name is not None and not reasons:
            value = _mean_accuracy(scores(printed, name), printed, params)
            reasons = _in_common(printed, params, counts)
            if params.dataset.name in PRINTED_NAMES:
                reasons += differences(printed, name)
        ours.append(value)
        comparable.append(not reasons)
        why.append("; ".join(reasons))
    return table.assign(ours=ours, comparable=comparable, why=why)


def _not_run(printed: Printed, params: Params) -> list[str]:
    """Why this run has no number at all for a printed one."""
    here = PRINTED_NAMES.get(params.dataset.name)
    if here is not None and here != printed["dataset"]:
        return [f"this run is on {here}"]
    split = printed["split"]
    if here is not None and split.isdigit() and split not in params.splits.ids:
        return [f"split {split} was not run"]
    return []


def _mean_accuracy(scores: pd.DataFrame, printed: Printed, params: Params) -> float:
    if params.dataset.name in PRINTED_NAMES and printed["split"].isdigit():
        scores = scores[scores["split_id"] == printed["split"]]
    return round(100 * float(scores["top1"].mean()), 2)


def _in_common(printed: Printed, params: Params, counts: Mapping[str, int]) -> list[str]:
    """Why our number must not be read as a reproduction of any paper's."""
    if params.dataset.name not in PRINTED_NAMES:
        return [f"ours is measured on {params.dataset.name}, the paper's on {printed['dataset']}"]
    reasons = []
    lost = counts.get("absent", 0) + counts.get("quarantined", 0)
    if lost:
        listed = lost + counts.get("ok", 0)
        reasons.append(f"{lost} of {listed} official clips are absent or quarantined")
    if params.recipe != "paper":
        reasons.append(f"recipe {params.recipe}, not the paper's")
    return reasons
