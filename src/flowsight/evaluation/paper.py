"""The paper's printed table beside ours, each row saying whether they may be compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from flowsight import published
from flowsight.config import Params
from flowsight.evaluation.predictions import records

PRINTED_NAMES = {"ucf101": "UCF-101", "hmdb51": "HMDB-51"}
_STREAM_OF_ITEM = {"spatial": "spatial", "temporal": "temporal", "fusion": "fused"}
OFFICIAL_SPLITS = ("1", "2", "3")
# the thesis prints these two methods' numbers as their own papers report them
_QUOTED = {"Two-Stream": "CNN-M-2048", "TSN": "BN-Inception"}


def paper_table(scores: pd.DataFrame, params: Params, counts: Mapping[str, int]) -> pd.DataFrame:
    """Published rows with our number (same unit, accuracy in %) where we have one.

    Args:
        scores: per-split table of `scoring.split_table`.
        params: which data set, recipe and rows ran.
        counts: clips by status (`ok`, `quarantined`, `absent`).

    Returns:
        Columns table, dataset, split, item, method, metric, value, ours (empty: nothing of ours
        stands for this row), comparable, why.
    """
    table = published.read("two_stream_attention")
    methods = {f.method: name for name, f in params.evaluate.fusions.items() if f.method}
    ours: list[float] = []
    comparable, why = [], []
    for row in records(table):
        name = methods.get(row["method"])
        reasons = _missing(row, name, params)
        value = math.nan if reasons else _ours(row, str(name), scores, params)
        reasons += [] if reasons else _differences(row, str(name), params, counts)
        ours.append(value)
        comparable.append(not reasons)
        why.append("; ".join(reasons))
    return table.assign(ours=ours, comparable=comparable, why=why)


def _missing(row: Mapping[str, str], fusion: str | None, params: Params) -> list[str]:
    """Why we have no number at all to put beside a printed one."""
    here = PRINTED_NAMES.get(params.dataset.name)
    if fusion is None:
        return [f"no fusion in the parameters stands for {row['method']}"]
    if here is not None and here != row["dataset"]:
        return [f"this run is on {here}"]
    if here is not None and row["split"].isdigit() and row["split"] not in params.splits.ids:
        return [f"split {row['split']} was not run"]
    return []


def _ours(row: Mapping[str, str], fusion: str, scores: pd.DataFrame, params: Params) -> float:
    stream = _STREAM_OF_ITEM[row["item"]]
    mine = scores[(scores["fusion"] == fusion) & (scores["stream"] == stream)]
    if params.dataset.name in PRINTED_NAMES and row["split"].isdigit():
        mine = mine[mine["split_id"] == row["split"]]
    return round(100 * float(mine["top1"].mean()), 2)


def _differences(
    row: Mapping[str, str], fusion: str, params: Params, counts: Mapping[str, int]
) -> list[str]:
    """Why our number must not be read as a reproduction of the printed one; empty if it may."""
    if params.dataset.name not in PRINTED_NAMES:
        return [f"ours is measured on {params.dataset.name}, the paper's on {row['dataset']}"]
    reasons = []
    lost = counts.get("absent", 0) + counts.get("quarantined", 0)
    if lost:
        listed = lost + counts.get("ok", 0)
        reasons.append(f"{lost} of {listed} official clips are absent or quarantined")
    if params.recipe != "paper":
        reasons.append(f"recipe {params.recipe}, not the paper's")
    reasons += _network_differences(fusion, params)
    if row["method"] in _QUOTED:
        network = _QUOTED[row["method"]]
        reasons.append(f"the paper quotes {row['method']}'s own publication, which used {network}")
    if row["split"] == "not_stated" and set(params.splits.ids) != set(OFFICIAL_SPLITS):
        ran = ", ".join(params.splits.ids)
        reasons.append(f"the paper does not say which split; ours is of split {ran}")
    return reasons


def _network_differences(fusion: str, params: Params) -> list[str]:
    pair = params.evaluate.fusions[fusion]
    networks = [params.rows[name].network for name in (pair.spatial, pair.temporal)]
    reasons = []
    others: Sequence[str] = sorted({n.backbone for n in networks} - {"inception_v3"})
    if others:
        reasons.append(f"backbone {', '.join(others)}, not inception_v3")
    if any(n.weights is None for n in networks):
        reasons.append("trained from scratch, not from ImageNet weights")
    return reasons
