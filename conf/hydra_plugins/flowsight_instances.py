"""Resolvers for `conf`: rows x splits -> the dicts that DVC's `foreach` walks, and rows from rows.

DVC cannot make `train@spatial-1` with `${item.model}` from a matrix, and it cannot expand a number
into a range, so the product is written into `params.yaml` when it is composed. Hydra imports this
module because `hydra.plugins_path` is `conf`.
"""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf


def instances(rows: DictConfig, split_ids: ListConfig) -> DictConfig:
    """The stage instances of every row and split.

    Returns:
        `train` and `attention` (phase 1), `train_attended` (phase 2) and `evaluate`; keys are
        `<row>-<split_id>`, values what `dvc.yaml` interpolates.
    """
    explained = {row.maps for row in rows.values() if row.maps is not None}
    found: dict[str, Any] = {"train": {}, "attention": {}, "train_attended": {}, "evaluate": {}}
    for name, row in rows.items():
        found["evaluate"][row.system] = {"system": row.system}
        for split_id in split_ids:
            key, item = f"{name}-{split_id}", _item(name, row, str(split_id))
            if row.maps is None:
                found["train"][key] = item
            else:
                item |= {"init": f"{row.init}-{split_id}", "maps": f"{row.maps}-{split_id}"}
                found["train_attended"][key] = item
            if name in explained:
                found["attention"][key] = item
    return OmegaConf.create(found)


def _item(name: str, row: DictConfig, split_id: str) -> dict[str, str]:
    weights = row.network.weights
    return {
        "row": name,
        "split": split_id,
        "system": row.system,
        "model": row.model,
        "task": row.task,
        "packs": {"rgb": "frames", "flow": "flow"}[row.input.modality],
        # a file that always exists stands for "no weights file"
        "weights": "README.md" if weights in (None, "imagenet") else weights,
    }


def variant(base: str, changes: DictConfig, *, _root_: DictConfig) -> DictConfig:
    """A row that differs from another in a few places.

    Args:
        base: key of `rows`.
        changes: what is different, nested as in the row.

    Returns:
        The whole row.
    """
    if base not in _root_.rows:
        raise ValueError(f"variant of an unknown row {base!r}")
    row = OmegaConf.create(OmegaConf.to_container(_root_.rows[base], resolve=True))
    OmegaConf.set_struct(row, True)  # a misspelt key is an error, not a new one
    merged = OmegaConf.merge(row, changes)
    assert isinstance(merged, DictConfig)
    return merged


OmegaConf.register_new_resolver("variant", variant, replace=True)
OmegaConf.register_new_resolver("instances", instances, replace=True)
