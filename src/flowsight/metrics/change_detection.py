"""Counting by changedetection.net's rules, and what follows from the counts.

| grey level of the truth | meaning | counts as |
|---|---|---|
| 0 | static | background |
| 50 | hard shadow | background |
| 85 | outside the region of interest | not scored |
| 170 | unknown (motion blur, borders) | not scored |
| 255 | moving | foreground |

Pixels outside the region of interest are not scored, whatever the truth says there. Frames are
numbered from 1; of a video only those within its temporal region of interest are scored, both ends
included. Sources: Goyette et al. 2012, "Changedetection.net: a new change detection benchmark
dataset", and the data set's own description.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

STATIC, SHADOW, OUTSIDE, UNKNOWN, MOVING = 0, 50, 85, 170, 255
LEVELS = (STATIC, SHADOW, OUTSIDE, UNKNOWN, MOVING)
Mask = npt.NDArray[np.bool_]
Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Scored pixels of a frame, a video or any set of frames."""

    tp: int = 0
    """Moving, found."""
    fp: int = 0
    """Background, taken for moving."""
    fn: int = 0
    """Moving, missed."""
    tn: int = 0
    """Background, left alone."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            tp=self.tp + other.tp,
            fp=self.fp + other.fp,
            fn=self.fn + other.fn,
            tn=self.tn + other.tn,
        )

    @property
    def recall(self) -> float:
        """tp / (tp + fn): share of the moving pixels that are found; nan if none moves."""
        return _share(self.tp, self.tp + self.fn)

    @property
    def precision(self) -> float:
        """tp / (tp + fp): share of the found pixels that do move; nan if none is found."""
        return _share(self.tp, self.tp + self.fp)

    @property
    def f_measure(self) -> float:
        """2 tp / (2 tp + fp + fn), the harmonic mean of both; nan if nothing moves or is found."""
        return _share(2 * self.tp, 2 * self.tp + self.fp + self.fn)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def total(counts: Iterable[Counts]) -> Counts:
    """The sum: a video's measures are those of its summed counts, not means over frames."""
    return sum(counts, Counts())


def scored_pixels(truth: Grey, region: Mask | None = None) -> Mask:
    """Where a frame is scored.

    Args:
        truth: (H, W) uint8 of the levels above.
        region: (H, W), True inside the region of interest; None: everywhere.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: a level that is none of the five, or shapes that differ.
    """
    _check(truth, region)
    scored: Mask = (truth == STATIC) | (truth == SHADOW) | (truth == MOVING)
    return scored if region is None else scored & region


def count(predicted: Mask, truth: Grey, region: Mask | None = None) -> Counts:
    """Count the scored pixels of a frame.

    Args:
        predicted: (H, W), True where something moves.
        truth, region: see `scored_pixels`.

    Raises:
        ValueError: as `scored_pixels`, or a prediction of another shape or type.
    """
    if predicted.dtype != np.bool_ or predicted.shape != truth.shape:
        raise ValueError(
            f"expected a bool prediction of shape {truth.shape}, got {predicted.dtype} "
            f"{predicted.shape}"
        )
    scored = scored_pixels(truth, region)
    moving = truth == MOVING
    found, missed = predicted & scored, scored & ~predicted
    return Counts(
        tp=int(np.count_nonzero(found & moving)),
        fp=int(np.count_nonzero(found & ~moving)),
        fn=int(np.count_nonzero(missed & moving)),
        tn=int(np.count_nonzero(missed & ~moving)),
    )


def _check(truth: Grey, region: Mask | None) -> None:
    if truth.dtype != np.uint8:
        raise ValueError(f"expected a truth of type uint8, got {truth.dtype}")
    other = np.setdiff1d(np.flatnonzero(np.bincount(truth.ravel())), LEVELS)
    if len(other):
        named = ", ".join(str(level) for level in other[:3])
        raise ValueError(f"expected the grey levels {LEVELS}, got {named}")
    if region is not None and region.shape != truth.shape:
        raise ValueError(f"expected a region of shape {truth.shape}, got {region.shape}")
