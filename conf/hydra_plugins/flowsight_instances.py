"""Resolvers for `conf`: rows x splits -> the dicts that DVC's `foreach` walks, and rows from rows.

DVC cannot make `train@spatial-1` with `${item.row}` from a matrix, and it cannot expand a number
into a range, so the product is written into `params.yaml` when it is composed. Hydra imports this
module because `hydra.plugins_path` is `conf`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from flowsight.nn.blocks import last_blocks
from flowsight.pipeline import instances as of_systems


def instances(*, _root_: DictConfig) -> DictConfig:
    """The stage instances of every row of the systems, and split, see `pipeline.instances`."""
    keys = [key for key in _root_ if key not in ("instances", "hydra")]
    plain = {str(key): _plain(_root_[key]) for key in keys}
    return OmegaConf.create(of_systems.instances(plain))


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def variant(base: str, changes: DictConfig, *, _root_: DictConfig) -> DictConfig:
    """A row that differs from another in a few places.

    Args:
        base: `<system>.<row>`.
        changes: what is different, nested as in the row.

    Returns:
        The whole row.
    """
    system, _, name = base.partition(".")
    rows: Mapping[str, Any] = (_root_.systems.get(system) or {}).get("rows") or {}
    if not rows.get(name) or "network" not in rows[name]:
        raise ValueError(f"variant of an unknown row {name!r} of {system!r}; does the system run?")
    row = OmegaConf.create(OmegaConf.to_container(rows[name], resolve=True))
    OmegaConf.set_struct(row, True)  # a misspelt key is an error, not a new one
    merged = OmegaConf.merge(row, changes)
    assert isinstance(merged, DictConfig)
    return merged


def experiment(letter: str, *, _root_: DictConfig) -> DictConfig:
    """Row `fcn_f` as another experiment of the paper: `squeezenet_f` becomes `squeezenet_a`."""
    plan = _root_.systems.saliency.rows.fcn_f.start.slim.plan
    changes = {"start": {"slim": {"plan": f"{plan[:-1]}{letter}"}}}
    return variant("saliency.fcn_f", OmegaConf.create(changes), _root_=_root_)


OmegaConf.register_new_resolver(
    "blocks", lambda backbone, places: last_blocks(backbone, list(places)), replace=True
)
OmegaConf.register_new_resolver("variant", variant, replace=True)
OmegaConf.register_new_resolver("experiment", experiment, replace=True)
OmegaConf.register_new_resolver("instances", instances, replace=True)
