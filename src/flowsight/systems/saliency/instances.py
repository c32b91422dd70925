"""Its stage instances: the pairs, rows x splits, evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowsight.pipeline.instances import options, weights_file
from flowsight.systems.saliency.params import SYSTEM

GROUPS = ("pairs", "train_saliency", "slim", "predict_saliency", "evaluate")


def instances(block: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Group -> key -> what `dvc.yaml` interpolates.

    `pairs` has the data set's name for its key; `train_saliency` the rows without `init`, `slim`
    those that go on from another one, mostly after slimming, `predict_saliency` all, by
    `<row>-<split_id>`.
    """
    name = params["images"]["name"]
    found: dict[str, Any] = {group: {} for group in GROUPS}
    found["pairs"][name] = {"name": name}
    for row_name, row in block["rows"].items():
        for split_id in params["images"]["split_ids"]:
            key, init = f"{row_name}-{split_id}", row["start"]["init"]
            item = {
                "row": row_name,
                "split": str(split_id),
                "system": SYSTEM,
                "weights": weights_file(row["start"]),
                "plan": _plan(row_name, row),
            }
            found["predict_saliency"][key] = item
            if init is None:
                found["train_saliency"][key] = item
            else:
                found["slim"][key] = {**item, "init": f"{init}-{split_id}"}
    found["evaluate"][SYSTEM] = _evaluate_item(name)
    return found


def _plan(name: str, row: Mapping[str, Any]) -> str:
    """The parameter that holds the row's plan: another plan makes no result of it stale."""
    slim = row["start"]["slim"]
    block = f"systems.{SYSTEM}"
    return f"{block}.rows.{name}.start" if slim is None else f"{block}.plans.{slim['plan']}"


def _evaluate_item(name: str) -> dict[str, Any]:
    """What `evaluate` reads, by its names in `dvc.yaml`."""
    read = {
        "predictions": f"predictions/{SYSTEM}/{name}",
        "maps": f"saliency_maps/{name}",
        "pairs": f"data/pairs/{name}",
        "raw": f"data/raw/{name}",
    }
    # as many as the systems over clips have, for `dvc.yaml` counts them out
    deps = [*read.values(), *[f"data/raw/{name}"] * 4]
    return {"system": SYSTEM, "reads": options(read), "deps": deps}


def report_item(params: Mapping[str, Any]) -> dict[str, str]:
    """What its part of the page reads: results and histories, nothing of the clips."""
    return {"history": f"history/{params['images']['name']}", "manifest": f"results/{SYSTEM}"}
