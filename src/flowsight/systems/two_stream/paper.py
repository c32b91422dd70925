"""The paper's printed table beside ours, each row saying whether they may be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from flowsight.evaluation.printed import OFFICIAL_SPLITS, Printed, beside_printed
from flowsight.params.config import Params
from flowsight.systems.two_stream.params import SYSTEM

_STREAM_OF_ITEM = {"spatial": "spatial", "temporal": "temporal", "fusion": "fused"}
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
    methods = {
        f.method: name for name, f in params.system(SYSTEM).evaluate.fusions.items() if f.method
    }

    def scores_of(printed: Printed, name: str) -> pd.DataFrame:
        stream = _STREAM_OF_ITEM[printed["item"]]
        return scores[(scores["fusion"] == name) & (scores["stream"] == stream)]

    return beside_printed(
        "two_stream",
        params=params,
        counts=counts,
        kind="fusion",
        stands_for=lambda printed: methods.get(printed["method"]),
        scores=scores_of,
        differences=lambda printed, name: _differences(printed, name, params),
    )


def _differences(printed: Printed, fusion: str, params: Params) -> list[str]:
    reasons = _network_differences(fusion, params)
    if printed["method"] in _QUOTED:
        method, network = printed["method"], _QUOTED[printed["method"]]
        reasons.append(f"the paper quotes {method}'s own publication, which used {network}")
    if printed["split"] == "not_stated" and set(params.splits.ids) != set(OFFICIAL_SPLITS):
        ran = ", ".join(params.splits.ids)
        reasons.append(f"the paper does not say which split; ours is of split {ran}")
    return reasons


def _network_differences(fusion: str, params: Params) -> list[str]:
    pair = params.system(SYSTEM).evaluate.fusions[fusion]
    rows = [params.row(name) for name in (pair.spatial, pair.temporal)]
    reasons = []
    others: Sequence[str] = sorted({row.network.backbone for row in rows} - {"inception_v3"})
    if others:
        reasons.append(f"backbone {', '.join(others)}, not inception_v3")
    if any(row.start.weights is None for row in rows):
        reasons.append("trained from scratch, not from ImageNet weights")
    return reasons
