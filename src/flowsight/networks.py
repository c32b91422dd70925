"""The network of a row: its model, its weights."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from flowsight.errors import InputError
from flowsight.rows import RowParams

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS = Path("data/weights")


def build(
    row: RowParams, num_classes: int, pretrained: Mapping[str, Tensor] | None = None
) -> nn.Module:
    """The row's network, untrained or with pretrained weights.

    Args:
        row: `row.model` is the module of `flowsight.models` that builds it.
        num_classes: K.
        pretrained: weights of the backbone as `pretrained_weights` gives them.

    Returns:
        (B, C, H, W) -> logits (B, K).

    Raises:
        InputError: no such model, a target layer it does not have, or weights that do not fit.
    """
    from flowsight.models.backbone import check_layers

    try:
        model = importlib.import_module(f"flowsight.models.{row.model}")
    except ModuleNotFoundError as error:
        if error.name != f"flowsight.models.{row.model}":
            raise
        raise InputError(
            f"expected the name of a module in src/flowsight/models, got {row.model!r} in the "
            "row's `model`"
        ) from None
    network: nn.Module = model.build(
        backbone=row.network.backbone,
        modality=row.input.modality,
        num_classes=num_classes,
        stack_length=row.input.stack_length,
        map_channel=row.network.map_channel,
        dropout=row.network.dropout,
        pretrained=pretrained,
    )
    # attention asks for them only after hours of training
    check_layers(network, row.network.target_layers)
    return network


def pretrained_weights(row: RowParams, folder: Path = WEIGHTS) -> dict[str, Tensor] | None:
    """The weights that `network.weights` names: none, torchvision's own or a file.

    Args:
        row: `row.network.weights` is null, `imagenet` or a file name.
        folder: where weight files lie.

    Raises:
        InputError: no such file, or not a state dict.
    """
    name = row.network.weights
    if name is None:
        return None
    if name == "imagenet":
        from flowsight.models import backbone

        return backbone.pretrained_state(row.network.backbone)
    from flowsight import checkpoint

    if not (folder / name).is_file():
        raise InputError(
            f"expected pretrained weights in {folder / name}, found no such file; bring it with "
            "`flowsight import weights FILE`"
        )
    return checkpoint.load(folder / name)
