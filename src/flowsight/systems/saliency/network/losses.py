"""What a map of scores loses on the pixels that count.

Axes: B batch, K classes, H rows, W columns.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

VOID = 255
"""Target of pixels that are not scored."""


def pixel_losses(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy summed over each image's pixels, and how many are scored.

    Args:
        scores: (B, K, H, W).
        target: (B, H, W) integers below K, or `VOID`.

    Returns:
        (B,) nats, differentiable; (B,) counts.
    """
    losses = F.cross_entropy(scores, target.long(), reduction="none", ignore_index=VOID)
    return losses.flatten(1).sum(dim=1), (target != VOID).flatten(1).sum(dim=1)


def image_loss(scores: Tensor, target: Tensor) -> Tensor:
    """Mean cross entropy of an image's pixels, summed over a batch."""
    sums, counts = pixel_losses(scores, target)
    return (sums / counts).sum()
