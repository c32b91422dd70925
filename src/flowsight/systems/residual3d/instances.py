"""Its stage instances: rows x splits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowsight.classifiers import instances as of_clips
from flowsight.systems.residual3d.params import SYSTEM

GROUPS = ("train", "predict", "spatial_attention", "evaluate")


def instances(block: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Group -> `<row>-<split_id>` -> what `dvc.yaml` interpolates.

    `spatial_attention` has the networks whose attention can be shown.
    """
    found: dict[str, Any] = {group: {} for group in GROUPS}
    for name, row in block["rows"].items():
        for split_id in params["splits"]["ids"]:
            key, item = f"{name}-{split_id}", of_clips.item(SYSTEM, name, row, split_id)
            found["train"][key] = found["predict"][key] = item
            if (row["network"].get("attention") or {}).get("spatial"):
                found["spatial_attention"][key] = item
    # its own maps, if it has some, not those that another stream sees
    maps = "spatial_attention" if found["spatial_attention"] else "attention"
    found["evaluate"][SYSTEM] = of_clips.evaluate_item(SYSTEM, maps, params)
    return found


def report_item(params: Mapping[str, Any]) -> dict[str, str]:
    """What its part of the page reads."""
    return of_clips.report_item(params)
