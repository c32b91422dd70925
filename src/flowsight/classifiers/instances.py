"""What the stage instances of all systems over clips share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowsight.pipeline.instances import weights


def item(name: str, row: Mapping[str, Any], split_id: str, params: Mapping[str, Any]) -> Any:
    """A row and a split: what every stage of it reads."""
    dataset = params["dataset"]["name"]
    return {
        "row": name,
        "split": split_id,
        "data": dataset,
        "folders": {
            "manifest": f"data/manifests/{dataset}",
            "split_file": f"data/splits/{dataset}/{split_id}.csv",
            "packs": packs(row, params),
        },
    }


def packs(row: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    """Folder of what a row sees."""
    kind = {"rgb": "frames", "flow": "flow"}[row["input"]["modality"]]
    return f"data/{kind}/{params['dataset']['name']}"


def training(item: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """The item of a training: the splits' gate must have let them pass.

    One that goes on from a checkpoint loads no other weights.
    """
    begun = [] if "start" in item["folders"] else weights(row["start"])
    passed = f"data/validation/{item['data']}/splits"
    return {**item, "also": [passed, *begun], "y": "val_loss"}


def evaluation(system: str, maps: str | None, params: Mapping[str, Any]) -> dict[str, Any]:
    """What `evaluate` reads; `maps` is the folder that holds the system's, if it has some."""
    dataset = params["dataset"]["name"]
    folders = {
        "predictions": f"predictions/{system}/{dataset}",
        **({"attention": f"{maps}/{system}/{dataset}"} if maps else {}),
        "manifest": f"data/manifests/{dataset}",
        "splits": f"data/splits/{dataset}",
        "truth": f"data/truth/{dataset}",
        "frames": f"data/frames/{dataset}",
        "flow": f"data/flow/{dataset}",
        "status": f"data/validation/{dataset}/clips/status.csv",
    }
    return {"folders": folders, "params": ["dataset", "splits.ids", "shards"]}


def report(system: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """What a part of the page reads: results, histories, and the manifest."""
    dataset = params["dataset"]["name"]
    folders = {
        "results": f"results/{system}",
        "history": f"history/{system}/{dataset}",
        "manifest": f"data/manifests/{dataset}",
    }
    return {"folders": folders, "params": ["dataset", "splits"]}
