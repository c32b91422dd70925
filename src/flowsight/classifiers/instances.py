"""What the stage instances of all systems over clips share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowsight.pipeline.instances import options, weights_file


def item(system: str, name: str, row: Mapping[str, Any], split_id: str) -> dict[str, str]:
    """What `dvc.yaml` interpolates of a row and a split."""
    return {
        "row": name,
        "split": split_id,
        "system": system,
        "packs": {"rgb": "frames", "flow": "flow"}[row["input"]["modality"]],
        "weights": weights_file(row["start"]),
    }


def evaluate_item(system: str, maps: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """What `evaluate` reads of a system over clips, by its names in `dvc.yaml`."""
    dataset = params["dataset"]["name"]
    read = {
        "predictions": f"predictions/{system}/{dataset}",
        "attention": f"{maps}/{dataset}",
        "manifest": f"data/manifests/{dataset}",
        "splits": f"data/splits/{dataset}",
        "truth": f"data/truth/{dataset}",
        "frames": f"data/frames/{dataset}",
        "flow": f"data/flow/{dataset}",
        "status": f"data/validation/{dataset}/clips/status.csv",
    }
    deps = [*list(read.values())[:-1], f"data/validation/{dataset}/clips"]
    return {"system": system, "reads": options(read), "deps": deps}


def report_item(params: Mapping[str, Any]) -> dict[str, str]:
    """What `dvc.yaml` interpolates for the part of the page: histories, and the manifest."""
    dataset = params["dataset"]["name"]
    return {"history": f"history/{dataset}", "manifest": f"data/manifests/{dataset}"}
