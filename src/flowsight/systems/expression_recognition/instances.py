"""Its stage instances: the pictures once, rows x splits, evaluation and report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowsight.pipeline.instances import weights
from flowsight.systems.expression_recognition.params import SYSTEM

VERBS = ("items", "train", "refine", "predict", "evaluate", "report")


def instances(block: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Verb -> `<row>-<split_id>`, or the system's name -> what is read.

    `train` has the rows without `init`, `refine` those that go on from another one.
    """
    data = block["data"]["name"]
    raw, items = f"data/raw/{data}", f"data/items/{SYSTEM}/{data}"
    found: dict[str, dict[str, Any]] = {verb: {} for verb in VERBS}
    divided = ["seed", f"systems.{SYSTEM}.data"]
    found["items"][SYSTEM] = {"data": data, "folders": {"raw": raw}, "params": divided}
    for name, row in block["rows"].items():
        for split_id in block["data"]["split_ids"]:
            key, init = f"{name}-{split_id}", row["start"].get("init")
            item = {
                "row": name,
                "split": str(split_id),
                "data": data,
                "folders": {"raw": raw, "items": items},
                "y": "val_loss",
            }
            found["predict"][key] = item
            if init is None:
                found["train"][key] = {**item, "also": weights(row["start"])}
            else:
                start = {"start": f"checkpoints/{data}/{init}-{split_id}"}
                found["refine"][key] = {**item, "folders": {**item["folders"], **start}}
    read = {"predictions": f"predictions/{SYSTEM}/{data}", "items": items, "raw": raw}
    found["evaluate"][SYSTEM] = {"folders": read}
    shown = {"results": f"results/{SYSTEM}", "history": f"history/{SYSTEM}/{data}"}
    found["report"][SYSTEM] = {"folders": shown}
    return found
