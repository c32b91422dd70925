"""What a network costs without a clock: weights, and multiply-adds of one input."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


def num_parameters(network: nn.Module) -> int:
    """Trained weights; fixed ones (interpolation) are left out."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def multiply_adds(network: nn.Module, x: Tensor) -> int:
    """Multiply-adds of the convolutions and linear layers for this input.

    (torch's own counter counts two operations for each, and takes 20 s to load.)

    Args:
        network: run once in evaluation mode; left as it was.
        x: its input.
    """
    total = 0

    def count(part: nn.Module, given: tuple[Any, ...], out: Tensor) -> None:
        nonlocal total
        if isinstance(part, nn.Linear):
            total += out.numel() * part.in_features
        elif isinstance(part, _ConvNd):
            sides = (
                _spread_sides(part, out) if isinstance(part, _ConvTransposeNd) else out.shape[2:]
            )
            total += len(out) * math.prod(sides) * part.weight.numel()

    layers = [part for part in network.modules() if isinstance(part, nn.Linear | _ConvNd)]
    hooks = [part.register_forward_hook(count) for part in layers]
    mode = network.training
    try:
        with torch.no_grad():
            network.eval()(x)
    finally:
        network.train(mode)
        for hook in hooks:
            hook.remove()
    return total


def _spread_sides(part: _ConvNd, out: Tensor) -> list[int]:
    """Sides of what a transposed convolution reads: it spreads each of its inputs."""
    numbers = zip(out.shape[2:], part.kernel_size, part.stride, part.padding, part.output_padding,
                  part.dilation, strict=True)  # fmt: skip
    return [
        (side + 2 * int(padding) - dilation * (kernel - 1) - 1 - extra) // stride + 1
        for side, kernel, stride, padding, extra, dilation in numbers
    ]
