"""How sure a number is: confidence intervals from resampling clips.

A clip that stands in several splits is drawn once for all of them, and two methods are compared on
the same draws (a paired comparison).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowsight.metrics.classification import Floats

_CHUNK = 64  # draws held in memory at once: 64 x 13,000 clips are 7 MB


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How often, and for which level."""

    num_samples: int
    """Draws; 0 asks for no intervals."""
    confidence: float
    """Level of the interval, for example 0.95."""
    seed: int
    """The same seed and clips give the same draws."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Hits:
    """What one split's test clips scored."""

    items: npt.NDArray[np.int64]
    """(N,) index of each clip among all clips of the data set."""
    values: Floats
    """(N,) score of each clip: 1.0 right, 0.0 wrong (or a difference of two such scores)."""


def resampled_means(splits: Sequence[Hits], *, num_samples: int, seed: int) -> Floats:
    """Mean over splits of each split's mean score, for resampled sets of clips.

    Args:
        splits: one entry per split, none empty.
        num_samples: draws B.
        seed: of the draws; the same seed and clips give the same draws.

    Returns:
        (B,) float64. A draw that holds no clip of a split leaves that split out.
    """
    clips, positions = np.unique(np.concatenate([s.items for s in splits]), return_inverse=True)
    ends = np.cumsum([len(s.items) for s in splits])
    places = np.split(positions, ends[:-1])
    rng = np.random.default_rng(seed)
    chance = np.full(len(clips), 1 / len(clips))
    means = []
    for start in range(0, num_samples, _CHUNK):
        size = min(_CHUNK, num_samples - start)
        counts = rng.multinomial(len(clips), chance, size=size)  # (size, clips)
        means.append(_mean_over_splits(counts, splits, places))
    return np.concatenate(means) if means else np.zeros(0)


def _mean_over_splits(
    counts: npt.NDArray[np.int64],
    splits: Sequence[Hits],
    places: Sequence[npt.NDArray[np.int64]],
) -> Floats:
    total, present = np.zeros(len(counts)), np.zeros(len(counts))
    for split, place in zip(splits, places, strict=True):
        drawn = counts[:, place]
        size = drawn.sum(axis=1)
        total += np.where(size > 0, (drawn @ split.values) / np.maximum(size, 1), 0.0)
        present += size > 0
    # clips of every split together are never empty: a draw holds at least one clip
    return total / present


def interval(splits: Sequence[Hits], resampling: Resampling) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the mean over splits.

    Args:
        splits: one entry per split, none empty.
        resampling: draws, level and seed.

    Returns:
        Lower and upper end, or None where no draws are asked for.
    """
    if resampling.num_samples == 0:
        return None
    means = resampled_means(splits, num_samples=resampling.num_samples, seed=resampling.seed)
    tail = (1 - resampling.confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
