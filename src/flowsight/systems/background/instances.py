"""Its stage instances: rows x splits, and the system as a whole (peers, evaluation, report)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowsight.systems.background.params import SYSTEM

VERBS = ("train", "predict", "peers", "evaluate", "report")


def instances(block: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Verb -> `<row>-<split>`, or the system's name -> what is read."""
    data = params["scenes"]["name"]
    raw, peers = f"data/raw/{data}", f"predictions/{SYSTEM}-peers/{data}"
    found: dict[str, dict[str, Any]] = {verb: {} for verb in VERBS}
    for name in block["rows"]:
        for split_id in params["scenes"]["splits"]:
            key, own = f"{name}-{split_id}", f"scenes.splits.{split_id}"
            item = {"row": name, "split": str(split_id), "data": data, "folders": {"scenes": raw}}
            found["train"][key] = {**item, "params": [own], "y": "train_loss"}
            found["predict"][key] = {**item, "params": ["scenes.videos", own]}
    listed = ["scenes.videos", f"systems.{SYSTEM}.peers"]
    found["peers"][SYSTEM] = {"data": data, "folders": {"scenes": raw}, "params": listed}
    read = {"scenes": raw, "predictions": f"predictions/{SYSTEM}/{data}", "peers": peers}
    found["evaluate"][SYSTEM] = {"folders": read, "params": ["scenes"]}
    shown = {"results": f"results/{SYSTEM}", "history": f"history/{SYSTEM}/{data}"}
    found["report"][SYSTEM] = {"folders": shown, "params": ["scenes"]}
    return found
