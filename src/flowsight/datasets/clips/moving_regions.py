"""Where something moves before a resting camera: a weak stand-in for masks that nobody drew.

What moves is what differs from the clip's own background, the median of its frames. An actor who
stays in place is background himself, and only the limbs that move are found.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

MIN_DIFFERENCE = 24
"""Grey levels, in the channel that differs most."""
MIN_SHARE = 0.002
"""Of the frame: smaller regions are noise, or a limb that hardly moves."""


def moving_regions(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Masks of what differs from the median of the frames.

    Args:
        frames: (T, H, W, 3) uint8 of a resting camera.

    Returns:
        (T, H, W) bool; empty where nothing of at least `MIN_SHARE` of the frame moves.
    """
    background = np.median(frames, axis=0).astype(np.uint8)
    return np.stack([_region(frame, background) for frame in frames])


def _region(frame: npt.NDArray[Any], background: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    differs = cv2.absdiff(frame, background).max(axis=2) >= MIN_DIFFERENCE
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    closing = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    mask = cv2.morphologyEx(differs.astype(np.uint8), cv2.MORPH_OPEN, disc)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, closing)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] >= MIN_SHARE * mask.size
    large[0] = False  # what does not move
    return large[labels] if count > 1 else np.zeros(mask.shape, bool)
