"""The network of a row over images: built, slimmed, or with the weights of its checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from flowsight.errors import InputError
from flowsight.nn import checkpoint, slimming
from flowsight.nn.slimming import Batch
from flowsight.systems.saliency import network as network_module
from flowsight.systems.saliency.network.losses import image_loss
from flowsight.systems.saliency.params import ImageRowParams


def build(row: ImageRowParams, pretrained: Mapping[str, Tensor] | None = None) -> nn.Module:
    """The network of `row.network`, not slimmed.

    Args:
        row: `network` and `input` are read.
        pretrained: weights of the backbone.

    Returns:
        (B, 3, H, W) -> scores (B, 2, H, W).

    Raises:
        InputError: weights that do not fit.
    """
    network: nn.Module = network_module.build(
        backbone=row.network.backbone,
        width=row.network.width,
        border=row.network.border,
        dropout=row.network.dropout,
        pretrained=pretrained,
    )
    return network


def example(row: ImageRowParams) -> Tensor:
    """A small input on which a network's kernels are followed."""
    side = 1 if row.network.border == "published" else 16
    return torch.linspace(-2, 2, 3 * side * side).reshape(1, 3, side, side)


def slimmed(
    network: nn.Module,
    row: ImageRowParams,
    plan: Mapping[str, float],
    *,
    seed: int,
    batches: Iterable[Batch] = (),
) -> nn.Module:
    """The network with fewer kernels, as the row's `slim` says; itself where it says nothing.

    Args:
        network: the trained network of the row that it goes on from.
        row: `slim` is read.
        plan: layer -> share of its kernels that stays.
        seed: for `random`.
        batches: (x, target) of training images, for `taylor`.

    Raises:
        InputError: a plan that the network cannot follow.
    """
    if row.start.slim is None:
        return network
    scores = None
    if row.start.slim.choice == "taylor":
        scores = slimming.taylor_scores(network, plan, example(row), batches, image_loss)
    return slimming.slim(
        network, plan, example(row), choice=row.start.slim.choice, seed=seed, scores=scores
    )


def restored(row: ImageRowParams, plan: Mapping[str, float], folder: Path) -> nn.Module:
    """The network with the weights of its checkpoint, of the size that the plan gives it.

    Args:
        row: of the parameters.
        plan: layer -> share of its kernels that stays.
        folder: with `model.pt`.

    Raises:
        InputError: no checkpoint, or one of another network or plan.
    """
    network = build(row)
    if plan:
        state = checkpoint.load(folder / "model.pt")
        _check_plan(network, plan, state, folder)
        slimming.reshape(network, state)
    checkpoint.restore(network, folder / "model.pt")
    return network


def _check_plan(
    network: nn.Module, plan: Mapping[str, float], state: Mapping[str, Tensor], folder: Path
) -> None:
    for layer, share in plan.items():
        full = network.state_dict().get(f"{layer}.weight")
        slim = state.get(f"{layer}.weight")
        if full is None or slim is None:
            raise InputError(f"expected a layer {layer!r} in the network and in {folder}/model.pt")
        if len(slim) != slimming.num_kept(len(full), share):
            raise InputError(
                f"expected {slimming.num_kept(len(full), share)} kernels of {layer} by the plan, "
                f"got {len(slim)} in {folder}/model.pt; slim and train it again"
            )
