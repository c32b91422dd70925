"""Segmentation over time: what a network loses on the scored pixels of frames; torch only.

Axes: B sequences, T frames, H rows, W columns. Unlike `classification` this is no LightningModule:
a sequence is cut into chunks whose state is carried on, each with a step of its own
(`scene_training`), and Lightning has no such loop.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from flowsight.metrics.change_detection import MOVING, SHADOW, STATIC


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """Sums over the scored pixels of a chunk; each a tensor of one number."""

    loss: Tensor
    """Binary cross entropy, in nats; differentiable."""
    pixels: Tensor
    """How many were scored."""
    tp: Tensor
    errors: Tensor
    """False positives and false negatives."""


def score(logits: Tensor, truth: Tensor) -> Scored:
    """Compare logits with the truth by changedetection.net's grey levels.

    Args:
        logits: (B, T, H, W), positive where something moves.
        truth: the same shape, uint8: 0 and 50 are background, 255 moves; 85 and 170 are not scored.
    """
    moving = truth == MOVING
    scored = (truth == STATIC) | (truth == SHADOW) | moving
    losses = F.binary_cross_entropy_with_logits(logits, moving.to(logits), reduction="none")
    # not a multiplication: an infinite loss where nothing is scored must not spread
    loss = torch.where(scored, losses, 0).sum()
    found = logits.detach() > 0
    return Scored(
        loss=loss,
        pixels=scored.sum(),
        tp=(found & moving).sum(),
        errors=((found != moving) & scored).sum(),
    )
