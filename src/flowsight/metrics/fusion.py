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

    Highest accuracy; a few validation clips leave many such weights, and of these the middle one
    is taken (then the one nearest to one half, then the lower): the ends of the plateau are where
    the next clip is most likely to be wrong, and the log loss would pick an end.

    Args:
        spatial: (N, K) probabilities of the validation clips; N may be 0.
        temporal: same shape.
        labels: (N,) class indices.
        steps: the candidates are 0/steps, 1/steps, ..., 1.
    """
    truth = np.asarray(labels, dtype=np.int64)
    if len(truth) == 0:
        return FusionWeight(value=EQUAL_WEIGHT, source="default", num_clips=0)

    weights = [step / steps for step in range(steps + 1)]
    accuracies = [
        classification.top_k_accuracy(fuse(spatial, temporal, weight), truth) for weight in weights
    ]
    tied = [w for w, a in zip(weights, accuracies, strict=True) if a == max(accuracies)]
    middle = sum(tied) / len(tied)
    # rounded: the last bits must not decide
    best = min(tied, key=lambda w: (round(abs(w - middle), 9), round(abs(w - EQUAL_WEIGHT), 9), w))
    return FusionWeight(value=best, source="validation", num_clips=len(truth))
