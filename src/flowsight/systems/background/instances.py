"""Its stage instances: rows x splits, and the system as a whole (peers, evaluation)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowsight.systems.background.params import SYSTEM

GROUPS = ("train_scenes", "predict_scenes", "peers", "evaluate_scenes")


def instances(block: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Group -> `<row>-<split>`, or the system's name -> what `dvc.yaml` interpolates."""
    rows = {
        f"{name}-{split_id}": {"row": name, "split": str(split_id), "system": SYSTEM}
        for name in block["rows"]
        for split_id in params["scenes"]["splits"]
    }
    whole = {SYSTEM: {"scenes": params["scenes"]["name"], "system": SYSTEM}}
    return {
        "train_scenes": rows,
        "predict_scenes": rows,
        "peers": whole,
        "evaluate_scenes": whole,
    }


def report_item(params: Mapping[str, Any]) -> dict[str, str]:
    """What its part of the page reads: results and histories, nothing of the clips."""
    return {"history": f"history/{params['scenes']['name']}", "manifest": f"results/{SYSTEM}"}
