"""A resolver for `conf/config.yaml`: rows x splits -> the dicts that DVC's `foreach` walks.

DVC cannot make `train@spatial-1` with `${item.model}` from a matrix, and it cannot expand a number
into a range, so the product is written into `params.yaml` when it is composed. Hydra imports this
module because `hydra.plugins_path` is `conf`.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf


def instances(rows: DictConfig, split_ids: ListConfig) -> DictConfig:
    """The stage instances of every row and split.

    Returns:
        `train` and `attention` (phase 1), `train_attended` (phase 2), `spatial_attention` (networks
        over clips that have it) and `evaluate`; keys are `<row>-<split_id>`, values what `dvc.yaml`
        interpolates.
    """
    explained = {row.maps for row in rows.values() if row.maps is not None}
    kinds = ("train", "attention", "train_attended", "spatial_attention", "evaluate")
    found: dict[str, Any] = {kind: {} for kind in kinds}
    for name, row in rows.items():
        shown = bool((row.network.get("attention") or {}).get("spatial"))
        entry = found["evaluate"].setdefault(
            row.system, {"system": row.system, "attention": "attention"}
        )
        if shown:  # its own maps, not those that another stream sees
            entry["attention"] = "spatial_attention"
        for split_id in split_ids:
            key, item = f"{name}-{split_id}", _item(name, row, str(split_id))
            if row.maps is None:
                found["train"][key] = item
            else:
                item |= {"init": f"{row.init}-{split_id}", "maps": f"{row.maps}-{split_id}"}
                found["train_attended"][key] = item
            if name in explained:
                found["attention"][key] = item
            if shown:
                found["spatial_attention"][key] = item
    return OmegaConf.create(found)


def _item(name: str, row: DictConfig, split_id: str) -> dict[str, str]:
    weights = row.network.weights
    return {
        "row": name,
        "split": split_id,
        "system": row.system,
        "model": row.model,
        "code": _code(row.model),
        "task": row.task,
        "packs": {"rgb": "frames", "flow": "flow"}[row.input.modality],
        # a file that always exists stands for "no weights file"
        "weights": "README.md" if weights in (None, "imagenet") else weights,
    }


def _code(model: str) -> str:
    """What of `src/flowsight/models` a network is: a file, or for a family of them a folder."""
    spec = find_spec(f"flowsight.models.{model}")
    is_folder = spec is not None and spec.submodule_search_locations is not None
    return model if is_folder else f"{model}.py"


OmegaConf.register_new_resolver("instances", instances, replace=True)
