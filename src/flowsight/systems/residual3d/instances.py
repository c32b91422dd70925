"""Its stage instances: rows x splits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowsight.classifiers import instances as of_clips
from flowsight.systems.residual3d.params import SYSTEM

VERBS = ("train", "predict", "spatial_attention", "evaluate", "report")


def instances(block: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Verb -> `<row>-<split_id>`, or the system's name -> what is read.

    `spatial_attention` has the networks whose attention can be shown.
    """
    found: dict[str, dict[str, Any]] = {verb: {} for verb in VERBS}
    for name, row in block["rows"].items():
        for split_id in params["splits"]["ids"]:
            key, item = f"{name}-{split_id}", of_clips.item(name, row, split_id, params)
            found["train"][key] = of_clips.training(item, row)
            found["predict"][key] = item
            if (row["network"].get("attention") or {}).get("spatial"):
                found["spatial_attention"][key] = item
    maps = "spatial_attention" if found["spatial_attention"] else None
    found["evaluate"][SYSTEM] = of_clips.evaluation(SYSTEM, maps, params)
    found["report"][SYSTEM] = of_clips.report(SYSTEM, params)
    return found
