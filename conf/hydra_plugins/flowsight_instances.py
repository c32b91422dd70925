"""Resolvers for `conf`: rows x splits -> the dicts that DVC's `foreach` walks, and rows from rows.

DVC cannot make `train@spatial-1` with `${item.model}` from a matrix, and it cannot expand a number
into a range, so the product is written into `params.yaml` when it is composed. Hydra imports this
module because `hydra.plugins_path` is `conf`.
"""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from flowsight.nn.blocks import last_blocks
from flowsight.systems.saliency import instances as image_instances


def instances(
    rows: DictConfig, split_ids: ListConfig, systems: ListConfig, *, _root_: DictConfig
) -> DictConfig:
    """The stage instances of every row of the systems, and split.

    Returns:
        `train` and `attention` (phase 1), `explain` and `learn_attention` (rows that make other
        maps of a phase-1 network), `train_attended` (phase 2), `alternate` (two rows in turn,
        under the name of the one that sees frames), `predict_attended`, `spatial_attention`
        (networks over clips that have it) and `evaluate`; keys are `<row>-<split_id>`, values what
        `dvc.yaml` interpolates. `results` is where each system's are, for the report. What
        `image_instances` adds is of the rows of `images`.
    """
    groups = ("train", "attention", "explain", "learn_attention", "train_attended", "alternate",
              "predict_attended", "spatial_attention", "evaluate")  # fmt: skip
    found: dict[str, Any] = {group: {} for group in groups}
    in_turn = {name for name, row in rows.items() if row.maps and rows[row.maps].maps == name}
    explained = {row.maps for row in rows.values() if row.maps is not None} - in_turn
    found["results"] = {
        # a file that always exists stands for the results of a system that is left out
        row.system: f"results/{row.system}" if row.system in systems else "LICENSE"
        for row in rows.values()
    }
    images = OmegaConf.to_container(_root_.images, resolve=True) if "images" in _root_ else None
    found |= image_instances.instances(images, systems)  # type: ignore[arg-type]
    name = image_instances.SYSTEM
    found["results"][name] = f"results/{name}" if name in systems else "LICENSE"
    for name, row in rows.items():
        if row.system not in systems:
            continue
        shown = bool((row.network.get("attention") or {}).get("spatial"))
        if shown or row.system not in found["evaluate"]:
            # its own maps, if it has some, not those that another stream sees
            maps = "spatial_attention" if shown else "attention"
            found["evaluate"][row.system] = _evaluate_item(row.system, maps, _root_.dataset.name)
        for split_id in split_ids:
            key, item = f"{name}-{split_id}", _item(name, row, str(split_id))
            if row.get("explains"):
                _add_explaining(found, key, item, row, rows)
                continue
            if row.maps is None:
                found["train"][key] = item
            else:
                item["maps"] = f"{row.maps}-{split_id}"
                found["predict_attended"][key] = item
            if name in in_turn and row.input.modality == "rgb":
                other = _item(row.maps, rows[row.maps], str(split_id))
                partner = {f"other_{field}": value for field, value in other.items()}
                found["alternate"][key] = {**item, **partner}
            elif row.maps is not None and name not in in_turn:
                found["train_attended"][key] = {**item, "init": f"{row.init}-{split_id}"}
            if name in explained:
                found["attention"][key] = item
            if shown:
                found["spatial_attention"][key] = item
    if image_instances.SYSTEM in systems:
        found["evaluate"][image_instances.SYSTEM] = image_instances.evaluate_item(images)  # type: ignore[arg-type]
    return OmegaConf.create(found)


def _evaluate_item(system: str, maps: str, dataset: str) -> dict[str, Any]:
    """What `evaluate` reads of a system over clips, by its names in `dvc.yaml`."""
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
    return {"system": system, "reads": image_instances.options(read), "deps": deps}


def _add_explaining(
    found: dict[str, Any], key: str, item: dict[str, str], row: DictConfig, rows: DictConfig
) -> None:
    """A row without a network of its own: it reads the checkpoint of the row it explains."""
    item = {**item, "explains": row.explains.row, "of": f"{row.explains.row}-{item['split']}"}
    through = row.explains.get("through")
    if through is None:
        found["explain"][key] = item
        return
    other = {f"through_{k}": v for k, v in _item(through, rows[through], item["split"]).items()}
    found["learn_attention"][key] = {**item, **other, "through": f"{through}-{item['split']}"}


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


def scene_instances(scenes: DictConfig, systems: ListConfig) -> DictConfig:
    """The stage instances of background subtraction: rows x splits, and the system as a whole.

    Returns:
        `train` with keys `<row>-<split>`, `system` with the key `background` (peers, evaluation),
        both empty where the system is left out; `results` and `history` for the report.
    """
    train: dict[str, Any] = {}
    runs = "background" in systems
    for name, row in scenes.rows.items() if runs else ():
        for split_id in scenes.splits:
            train[f"{name}-{split_id}"] = {
                "row": name,
                "split": str(split_id),
                "model": row.model,
                "task": row.task,
            }
    found = {
        "train": train,
        "system": {"background": {"scenes": scenes.name}} if runs else {},
        # a file that always exists stands for what a system that is left out does not make
        "results": "results/background" if runs else "LICENSE",
        "history": f"history/{scenes.name}" if runs else "LICENSE",
    }
    return OmegaConf.create(found)


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


OmegaConf.register_new_resolver(
    "blocks", lambda backbone, places: last_blocks(backbone, list(places)), replace=True
)
OmegaConf.register_new_resolver("variant", variant, replace=True)
OmegaConf.register_new_resolver("instances", instances, replace=True)
OmegaConf.register_new_resolver("scene_instances", scene_instances, replace=True)
