"""Resolvers for the rows of `images`: variants of a row, and the paper's experiments."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf


def image_row(base: str, changes: DictConfig, *, _root_: DictConfig) -> DictConfig:
    """A row of `images.rows` that differs from another in a few places.

    Args:
        base: key of `images.rows`.
        changes: what is different, nested as in the row.
    """
    if base not in _root_.images.rows:
        raise ValueError(f"image_row of an unknown row {base!r}")
    row = OmegaConf.create(OmegaConf.to_container(_root_.images.rows[base], resolve=True))
    OmegaConf.set_struct(row, True)  # a misspelt key is an error, not a new one
    merged = OmegaConf.merge(row, changes)
    assert isinstance(merged, DictConfig)
    return merged


def experiment(letter: str, *, _root_: DictConfig) -> DictConfig:
    """Row `fcn_f` as another experiment of the paper: `squeezenet_f` becomes `squeezenet_a`."""
    plan = _root_.images.rows.fcn_f.slim.plan
    changes = {"experiment": letter, "slim": {"plan": f"{plan[:-1]}{letter}"}}
    return image_row("fcn_f", OmegaConf.create(changes), _root_=_root_)


OmegaConf.register_new_resolver("image_row", image_row, replace=True)
OmegaConf.register_new_resolver("experiment", experiment, replace=True)
