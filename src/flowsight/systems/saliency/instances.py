"""Its stage instances: the pairs, rows x splits, evaluation and report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowsight.pipeline.instances import weights
from flowsight.systems.saliency.params import SYSTEM

VERBS = ("items", "train", "refine", "predict", "evaluate", "report")


def instances(block: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Verb -> `<row>-<split_id>`, or the system's name -> what is read.

    `train` has the rows without `init`, `refine` those that go on from another one, mostly after
    slimming.
    """
    data = params["images"]["name"]
    raw, items = f"data/raw/{data}", f"data/items/{SYSTEM}/{data}"
    found: dict[str, dict[str, Any]] = {verb: {} for verb in VERBS}
    found["items"][SYSTEM] = {
        "data": data,
        "folders": {"raw": raw},
        "params": ["seed", "images"],
    }
    for name, row in block["rows"].items():
        for split_id in params["images"]["split_ids"]:
            key, init = f"{name}-{split_id}", row["start"]["init"]
            item = {
                "row": name,
                "split": str(split_id),
                "data": data,
                "folders": {"raw": raw, "items": items},
                "params": _plan(row),
                "y": "train_loss",
            }
            found["predict"][key] = item
            if init is None:
                found["train"][key] = {**item, "also": weights(row["start"])}
            else:
                start = {"start": f"checkpoints/{data}/{init}-{split_id}"}
                found["refine"][key] = {**item, "folders": {**item["folders"], **start}}
    read = {"predictions": f"predictions/{SYSTEM}/{data}", "items": items, "raw": raw}
    found["evaluate"][SYSTEM] = {"folders": read, "params": ["images"]}
    shown = {"results": f"results/{SYSTEM}", "history": f"history/{SYSTEM}/{data}"}
    found["report"][SYSTEM] = {"folders": shown, "params": ["images"]}
    return found


def _plan(row: Mapping[str, Any]) -> list[str]:
    """The row's plan: another one of the block makes no result of it stale."""
    slim = row["start"]["slim"]
    return [] if slim is None else [f"systems.{SYSTEM}.plans.{slim['plan']}"]
