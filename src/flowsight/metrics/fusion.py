"""Late fusion: a weighted average of two streams' probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowsight.metrics import classification
from flowsight.metrics.classification import Floats

EQUAL_WEIGHT = 0.5


@dataclass(frozen=True, kw_only=True)
class FusionWeight:
    """Weight of the spatial stream, and where it comes from."""

    value: float
    """In [0, 1]; the temporal stream has the rest."""
    source: str
    """`validation`, or `default` where there are no validation clips."""
    num_clips: int
    """Validation clips it was chosen on."""


def fuse(spatial: npt.ArrayLike, temporal: npt.ArrayLike, weight: float) -> Floats:
    """Weighted average of probabilities.

    Args:
        spatial: (N, K) probabilities.
        temporal: same shape.
        weight: of the spatial stream, in [0, 1].

    Returns:
        (N, K) float64, rows sum to 1.
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"weight must be in [0, 1], got {weight}")
    first, second = np.asarray(spatial, np.float64), np.asarray(temporal, np.float64)
    return weight * first + (1 - weight) * second


def choose_weight(
    spatial: npt.ArrayLike, temporal: npt.ArrayLike, labels: npt.ArrayLike, steps: int
) -> FusionWeight:
    """Choose the weight on validation clips; never give this function test clips.

    Highest accuracy first, then lowest log loss, then nearest to one half, then the lower weight.

    Args:
        spatial: (N, K) probabilities of the validation clips; N may be 0.
        temporal: same shape.
        labels: (N,) class indices.
        steps: the candidates are 0/steps, 1/steps, ..., 1.
    """
    truth = np.asarray(labels, dtype=np.int64)
    if len(truth) == 0:
        return FusionWeight(value=EQUAL_WEIGHT, source="default", num_clips=0)

    def merit(weight: float) -> tuple[float, float, float, float]:
        probs = fuse(spatial, temporal, weight)
        accuracy = classification.top_k_accuracy(probs, truth)
        # rounded: the last bits differ between CPUs and must not decide
        loss = round(classification.log_loss(probs, truth), 9)
        return -accuracy, loss, round(abs(weight - EQUAL_WEIGHT), 9), weight

    best = min((step / steps for step in range(steps + 1)), key=merit)
    return FusionWeight(value=best, source="validation", num_clips=len(truth))
