"""The stage instances of salient-object detection: rows x splits, as DVC's `foreach` walks them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

SYSTEM = "saliency"
GROUPS = ("pairs", "train_saliency", "slim", "predict_saliency")


def instances(images: Mapping[str, Any] | None, systems: Collection[str]) -> dict[str, Any]:
    """What the resolver of `conf/hydra_plugins` adds for the parameters `images`.

    Args:
        images: the block as YAML gives it.
        systems: whose stages run.

    Returns:
        `pairs` (one, by the data set's name), `train_saliency` (rows without `init`), `slim` (rows
        that go on from another one, mostly after slimming) and `predict_saliency` (all), keys
        `<row>-<split_id>`; empty where the system does not run.
    """
    found: dict[str, Any] = {group: {} for group in GROUPS}
    if images is None or SYSTEM not in systems:
        return found
    found["pairs"][images["name"]] = {"name": images["name"]}
    for name, row in images["rows"].items():
        weights = row["network"]["weights"]
        for split_id in images["split_ids"]:
            item = {
                "row": name,
                "split": str(split_id),
                "model": row["model"],
                "task": row["task"],
                # a file that always exists stands for "no weights file"
                "weights": "README.md" if weights in (None, "imagenet") else weights,
                "plan": _plan(name, row),
            }
            key = f"{name}-{split_id}"
            found["predict_saliency"][key] = item
            if row["init"] is None:
                found["train_saliency"][key] = item
            else:
                found["slim"][key] = {
                    **item,
                    "init_row": row["init"],
                    "init": f"{row['init']}-{split_id}",
                }
    return found


def _plan(name: str, row: Mapping[str, Any]) -> str:
    """The parameter that holds the row's plan: another plan makes no result of it stale."""
    own = f"images.rows.{name}.slim"
    return own if row["slim"] is None else f"images.plans.{row['slim']['plan']}"


def evaluate_item(images: Mapping[str, Any]) -> dict[str, Any]:
    """What `evaluate@saliency` reads, by its names in `dvc.yaml`."""
    name = images["name"]
    read = {
        "predictions": f"predictions/{SYSTEM}/{name}",
        "maps": f"saliency_maps/{name}",
        "pairs": f"data/pairs/{name}",
        "raw": f"data/raw/{name}",
    }
    # as many as the systems over clips have, for `dvc.yaml` counts them out
    parts = [f"data/pairs/{name}/{part}" for part in ("items.csv", "status.csv", "splits")]
    printed = "src/flowsight/systems/saliency/published.csv"
    return {
        "system": SYSTEM,
        "reads": options(read),
        "deps": [*read.values(), *parts, printed],
    }


def options(folders: Mapping[str, str]) -> str:
    """Folders as a command line takes them."""
    return " ".join(f"--{name} {folder}" for name, folder in folders.items())
