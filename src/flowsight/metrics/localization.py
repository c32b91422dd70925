"""How well an attention map finds the actor: numbers against a true mask.

Axes: T frames (or any number of leading axes), H rows, W columns. Every function takes one map
(H, W) or many (..., H, W), a mask of the same shape, and returns one number per map (...). A map
without any attention (all zero) finds nothing and scores 0. An empty mask scores nan: there is
nothing to find, so leave such frames out of means.

By chance: a map that knows nothing points into the mask, and has energy in it, by the mask's
share of the area (`chance`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def pointing_game(attention: Array, mask: Array, *, tolerance_px: int = 0) -> Array:
    """Whether the maximum lies in the mask.

    Where the maximum is reached at several pixels, the share of them that lies in the mask: a
    constant map scores the mask's share instead of whatever its first pixel says.

    Args:
        attention: (..., H, W), non-negative.
        mask: (..., H, W) bool.
        tolerance_px: how far beside the mask still counts (Chebyshev distance); Zhang et al. use
            15 px on photographs.

    Returns:
        (...) float in [0, 1]; nan for an empty mask.

    Source: Zhang et al. 2016, "Top-down Neural Attention by Excitation Backprop", section 4.1.
    """
    attention, mask = _checked(attention, mask)
    peak = attention.max(axis=(-2, -1), keepdims=True)
    at_peak = (attention == peak) & (peak > 0)
    hits = (at_peak & _dilated(mask, tolerance_px)).sum(axis=(-2, -1))
    return _unless_empty(hits / np.maximum(at_peak.sum(axis=(-2, -1)), 1), mask)


def energy_in_mask(attention: Array, mask: Array) -> Array:
    """Share of the map's sum inside the mask ("energy-based pointing game").

    Args:
        attention: (..., H, W), non-negative.
        mask: (..., H, W) bool.

    Returns:
        (...) float in [0, 1]; nan for an empty mask.

    Source: Wang et al. 2020, "Score-CAM: Score-Weighted Visual Explanations for Convolutional
    Neural Networks", section 4.3.
    """
    attention, mask = _checked(attention, mask)
    total = attention.sum(axis=(-2, -1))
    inside = np.where(mask, attention, 0.0).sum(axis=(-2, -1))
    return _unless_empty(inside / np.where(total > 0, total, 1.0), mask)


def iou(attention: Array, mask: Array, *, threshold: float = 0.5) -> Array:
    """Intersection over union of the mask and the map's strong part.

    The strong part is where the map reaches `threshold` times its own maximum, so the map's scale
    does not matter.

    Args:
        attention: (..., H, W), non-negative.
        mask: (..., H, W) bool.
        threshold: share of the maximum, in (0, 1].

    Returns:
        (...) float in [0, 1]; nan for an empty mask.

    Source: the rule of Zhou et al. 2016, "Learning Deep Features for Discriminative
    Localization", section 3.2, who cut at 0.2 and draw a box; 0.5 cuts close to the object.
    """
    attention, mask = _checked(attention, mask)
    if not 0 < threshold <= 1:
        raise ValueError(f"expected threshold in (0, 1], got {threshold}")
    peak = attention.max(axis=(-2, -1), keepdims=True)
    strong = (attention >= threshold * peak) & (peak > 0)
    union = (strong | mask).sum(axis=(-2, -1))
    return _unless_empty((strong & mask).sum(axis=(-2, -1)) / np.maximum(union, 1), mask)


def chance(mask: Array) -> Array:
    """What a map that knows nothing scores: the mask's share of the area.

    Exact for `pointing_game` (a uniformly drawn pixel) and `energy_in_mask` (a constant map), and
    also for `iou` of a constant map.

    Args:
        mask: (..., H, W) bool.

    Returns:
        (...) float in [0, 1]; nan for an empty mask.
    """
    mask = np.asarray(mask, dtype=bool)
    return _unless_empty(mask.mean(axis=(-2, -1)), mask)


def _checked(attention: Array, mask: Array) -> tuple[Array, Array]:
    attention, mask = np.asarray(attention, dtype=np.float64), np.asarray(mask, dtype=bool)
    if attention.shape != mask.shape or attention.ndim < 2:
        raise ValueError(
            f"expected map and mask of one shape (..., H, W), got {attention.shape} and "
            f"{mask.shape}; scale the map to the mask first"
        )
    if not (np.isfinite(attention).all() and (attention >= 0).all()):
        raise ValueError("expected a finite, non-negative map")
    return attention, mask


def _unless_empty(values: Array, mask: Array) -> Array:
    return np.where(mask.any(axis=(-2, -1)), values, np.nan)


def _dilated(mask: Array, radius: int) -> Array:
    """Grow a mask by `radius` pixels to all sides (square)."""
    for axis in (-2, -1):
        grown = mask.copy()
        for step in range(1, min(radius, mask.shape[axis] - 1) + 1):
            forward, backward = [slice(None)] * mask.ndim, [slice(None)] * mask.ndim
            forward[axis], backward[axis] = slice(step, None), slice(None, -step)
            grown[tuple(forward)] |= mask[tuple(backward)]
            grown[tuple(backward)] |= mask[tuple(forward)]
        mask = grown
    return mask
