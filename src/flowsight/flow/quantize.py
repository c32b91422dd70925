"""Stored flow: displacements in +-bound px as uint8, 0 px between levels 127 and 128.

q = rint((clip(v, -b, b) + b) * 255 / (2b)), back v = 2b q / 255 - b, as denseflow and TSN.
"""

from __future__ import annotations

import math

import numpy as np

from flowsight.errors import InputError


def quantize(flow: np.ndarray, bound_px: float) -> np.ndarray:
    """Displacements to levels.

    Args:
        flow: any shape, float, px per frame.
        bound_px: values beyond +-bound are clipped.

    Returns:
        Same shape, uint8. Halves round to even (only 0 px falls on one: level 128).

    Raises:
        InputError: NaN in the flow, or a bound that is not positive.
    """
    check_bound(bound_px)
    if np.isnan(flow).any():
        raise InputError("expected a flow field of numbers, got NaN")
    # in double, so that no implementation's rounding moves a value across a level's edge
    clipped = np.clip(np.asarray(flow, np.float64), -bound_px, bound_px)
    return np.rint((clipped + bound_px) * 255 / (2 * bound_px)).astype(np.uint8)


def dequantize(levels: np.ndarray, bound_px: float) -> np.ndarray:
    """Levels to displacements, at most bound / 255 px from what was quantised.

    Args:
        levels: any shape, uint8.
        bound_px: the bound used for quantising.

    Returns:
        Same shape, float32, px per frame. Mirrored levels give exactly the negative.

    Raises:
        InputError: not uint8, or a bound that is not positive.
    """
    check_bound(bound_px)
    _check_levels(levels)
    # (2q - 255) b / 255 is 2b q / 255 - b, but exactly odd under q -> 255 - q
    return ((2 * levels.astype(np.float64) - 255) * bound_px / 255).astype(np.float32)


def mirror(levels: np.ndarray) -> np.ndarray:
    """Stored u of the horizontally mirrored frames, before mirroring its columns: 255 - q.

    Raises:
        InputError: not uint8.
    """
    _check_levels(levels)
    return 255 - levels


def check_bound(bound_px: float) -> None:
    """Raise InputError unless the bound is a positive number."""
    if not (math.isfinite(bound_px) and bound_px > 0):
        raise InputError(f"expected bound_px as a positive number of px, got {bound_px}")


def _check_levels(levels: np.ndarray) -> None:
    if levels.dtype != np.uint8:
        raise InputError(f"expected stored flow as uint8, got {levels.dtype}")
