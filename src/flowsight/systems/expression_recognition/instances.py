"""The stage instances of expression recognition: rows x splits, and the pictures once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SYSTEM = "expression_recognition"


def instances(block: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What runs.

    Args:
        block: `systems.expression_recognition` as YAML gives it.
        shared: all parameters; nothing of them is read.

    Returns:
        Verb -> key -> what is read: `items` (one, by the data set's name), `train` (rows without
        `start.init`), `refine` (rows that go on from another one), `predict` (all), keys
        `<row>-<split_id>`, and `evaluate` and `report` (one each).
    """
    data = block["data"]["name"]
    found: dict[str, dict[str, Any]] = {
        verb: {} for verb in ("items", "train", "refine", "predict", "evaluate", "report")
    }
    raw, items = f"data/raw/{data}", f"data/items/{data}"
    found["items"][data] = {
        "data": data,
        "folders": {"raw": raw},
        "reads": [raw],
        "shared": f"systems.{SYSTEM}.data",
    }
    for name, row in block["rows"].items():
        for split_id in block["data"]["split_ids"]:
            key = f"{name}-{split_id}"
            item = _row_item(name, str(split_id), data)
            found["predict"][key] = item
            init = row["start"].get("init")
            if init is not None:
                found["refine"][key] = item | {
                    "init_row": init,
                    "start": f"checkpoints/{data}/{init}-{split_id}",
                }
                continue
            weights = row["start"].get("weights")
            own = [] if weights in (None, "imagenet") else [f"data/weights/{weights}"]
            found["train"][key] = item | {"reads": [*item["reads"], *own]}
    folders = {"predictions": f"predictions/{SYSTEM}/{data}", "items": items, "raw": raw}
    found["evaluate"][SYSTEM] = {"data": data, "folders": folders, "reads": list(folders.values())}
    results = f"results/{SYSTEM}"
    found["report"][SYSTEM] = {"data": data, "folders": {"results": results}, "reads": [results]}
    return found


def _row_item(row: str, split: str, data: str) -> dict[str, Any]:
    folders = {"raw": f"data/raw/{data}", "items": f"data/items/{data}"}
    tables = [f"{folders['items']}/{name}.csv" for name in ("items", "status", "classes")]
    return {
        "row": row,
        "split": split,
        "data": data,
        "folders": folders,
        "reads": [folders["raw"], *tables, f"{folders['items']}/splits/{split}.csv"],
        "shared": f"systems.{SYSTEM}.data.name",
    }
