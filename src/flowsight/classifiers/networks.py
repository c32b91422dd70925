"""The network of a row: its model, its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from flowsight.classifiers.params import RowParams
from flowsight.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

WEIGHTS = Path("data/weights")
_WIDE = 32
"""Channels of the first convolution from which channels last does not pay over time on CPUs."""


def build(
    model: ModuleType,
    row: RowParams,
    num_classes: int,
    pretrained: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """The row's network, untrained or with pretrained weights.

    Args:
        model: the system's `network`.
        row: `network` and `input` are read.
        num_classes: K.
        pretrained: weights of the backbone as `pretrained_weights` gives them.

    Returns:
        (B, C, H, W), or (B, C, T, H, W) for clips -> logits (B, K).

    Raises:
        InputError: a target layer it does not have, or weights that do not fit.
    """
    from flowsight.nn.backbone import check_layers

    if row.input.clip_length is not None:
        return _build_over_time(model, row, num_classes, pretrained)
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


def _build_over_time(
    model: ModuleType, row: RowParams, num_classes: int, pretrained: Mapping[str, Tensor] | None
) -> nn.Module:
    switches = row.network.attention
    network: nn.Module = model.build(
        backbone=row.network.backbone,
        modality=row.input.modality,
        num_classes=num_classes,
        width=row.network.width,
        dropout=row.network.dropout,
        attention=None if switches is None else model.block_attention(**asdict(switches)),
        pretrained=pretrained,
    )
    return network


def memory_format(network: nn.Module) -> torch.memory_format:
    """The layout of weights and inputs in which a network is fastest: channels last.

    But not for wide networks over time on CPUs, which lose a quarter of their speed by it, where
    narrow ones double it (measured by a benchmark).
    """
    import torch

    kernels = [parameter for parameter in network.parameters() if parameter.ndim == 5]
    if not kernels:
        return torch.channels_last
    narrow = len(kernels[0]) < _WIDE
    return (
        torch.channels_last_3d if narrow or torch.cuda.is_available() else torch.contiguous_format
    )


def pretrained_weights(row: RowParams, folder: Path = WEIGHTS) -> dict[str, Tensor] | None:
    """The weights that `start.weights` names: none, torchvision's own or a file.

    Args:
        row: `row.start.weights` is null, `imagenet` or a file name.
        folder: where weight files lie.

    Raises:
        InputError: no such file, or not a state dict.
    """
    return named_weights(row.start.weights, row.network.backbone, folder)


def named_weights(
    name: str | None, backbone: str, folder: Path = WEIGHTS
) -> dict[str, Tensor] | None:
    """`pretrained_weights` by name: null, `imagenet` or a file below `folder`."""
    if name is None:
        return None
    if name == "imagenet":
        from flowsight.nn import backbone as backbones

        return backbones.pretrained_state(backbone)
    from flowsight.nn import checkpoint

    if not (folder / name).is_file():
        raise InputError(
            f"expected pretrained weights in {folder / name}, found no such file; bring it with "
            "`flowsight import weights FILE`"
        )
    return checkpoint.load(folder / name)
