"""Deconvolutions that interpolate, and crops that keep maps of different strides aligned.

Axes: B batch, K classes, H rows, W columns.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def bilinear_kernel(size: int, factor: int) -> Tensor:
    """Kernel of the deconvolution of stride `factor` that interpolates linearly.

    Args:
        size: 2 * factor (its middle lies between two samples) or 2 * factor - 1 (on a sample).
        factor: how many samples one becomes.

    Returns:
        (size, size) float32, rising to its middle and falling; its samples that meet in one output
        sum to 1.
    """
    place = torch.arange(size, dtype=torch.float64)
    line = 1 - (place - (size - 1) / 2).abs() / factor
    return torch.outer(line, line).float()


class Upsample(nn.ConvTranspose2d):
    """Each class by itself, (B, K, h, w) -> (B, K, (h - 1) * factor + size, ...).

    The kernel is fixed, as in the authors' released networks, and counts as no trained parameter.

    Args:
        num_classes: K.
        size: of the kernel, see `bilinear_kernel`.
        factor: stride.
        extend: repeat the outermost row and column once more on each side before, so that values
            do not fall towards zero at the border; index 0 of what comes out then lies `factor`
            samples further out.
    """

    def __init__(self, num_classes: int, size: int, factor: int, *, extend: bool) -> None:
        super().__init__(
            num_classes, num_classes, size, stride=factor, groups=num_classes, bias=False
        )
        self.extend = extend
        self.weight.requires_grad_(False)
        self.weight.data.copy_(bilinear_kernel(size, factor))

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B, K, h, w) -> (B, K, H, W), larger than any map it is cropped to."""
        if self.extend:  # not `replicate`: its gradient is not deterministic on GPUs
            x = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)
            x = torch.cat([x[:, :, :, :1], x, x[:, :, :, -1:]], dim=3)
        return super().forward(x, output_size)


def crop(x: Tensor, like: Tensor, offset: int) -> Tensor:
    """The part of `x` from (offset, offset) on that is as high and wide as `like`."""
    height, width = like.shape[-2:]
    return x[:, :, offset : offset + height, offset : offset + width]
