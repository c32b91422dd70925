"""How well saliency maps fit true masks: F-measure, mean absolute error, structure, thresholds.

A map holds for each pixel how salient it is, in [0, 1] or as 0 ... 255; the mask says which pixels
are. Sources: Achanta et al. 2009 (F-measure with beta^2 = 0.3), Perazzi et al. 2012 (mean absolute
error), Fan et al. 2017, "Structure-measure: a new way to evaluate foreground maps".

Maps are taken as they are. Some of the field's tools first stretch each map from its lowest to its
highest value, which hides a map that is sure of nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

BETA2 = 0.3
"""Precision weighs more than recall: the field's habit."""
LEVELS = 256


def confusion(predicted: Mask, mask: Mask) -> tuple[int, int, int, int]:
    """Pixels by what was said and what is true.

    Args:
        predicted, mask: (H, W) bool.

    Returns:
        tp, fp, fn, tn.
    """
    tp = int(np.count_nonzero(predicted & mask))
    fp = int(np.count_nonzero(predicted)) - tp
    fn = int(np.count_nonzero(mask)) - tp
    return tp, fp, fn, mask.size - tp - fp - fn


def precision(tp: npt.ArrayLike, fp: npt.ArrayLike) -> Floats:
    """Share of the pixels said to be salient that are; 0 where none is said to be."""
    return _share(tp, np.asarray(tp) + np.asarray(fp))


def recall(tp: npt.ArrayLike, fn: npt.ArrayLike) -> Floats:
    """Share of the salient pixels that are found; 0 where there are none."""
    return _share(tp, np.asarray(tp) + np.asarray(fn))


def _share(part: npt.ArrayLike, whole: npt.ArrayLike) -> Floats:
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)


def f_beta(tp: npt.ArrayLike, fp: npt.ArrayLike, fn: npt.ArrayLike, beta2: float = BETA2) -> Floats:
    """(1 + b) P R / (b P + R) of precision P and recall R, b = beta^2; 0 where both are 0.

    Args:
        tp, fp, fn: counts of pixels, any shapes that go together.
        beta2: below 1 precision weighs more.

    Returns:
        float64 in [0, 1].
    """
    tp, fp, fn = (np.asarray(x, dtype=np.float64) for x in (tp, fp, fn))
    return _share((1 + beta2) * tp, (1 + beta2) * tp + fp + beta2 * fn)


def threshold_counts(levels: npt.NDArray[np.uint8], mask: Mask) -> tuple[Ints, Ints]:
    """Pixels at or above each threshold 0 ... 255, in the mask and outside of it.

    Args:
        levels: (H, W) uint8 map.
        mask: (H, W) bool.

    Returns:
        tp and fp, (256,) int64 each, falling with the threshold.
    """
    inside = np.bincount(levels[mask], minlength=LEVELS)
    outside = np.bincount(levels[~mask], minlength=LEVELS)
    return inside[::-1].cumsum()[::-1], outside[::-1].cumsum()[::-1]


def mean_absolute_error(saliency: npt.ArrayLike, mask: Mask) -> float:
    """Mean of |map - mask| over the pixels.

    Args:
        saliency: (H, W) in [0, 1].
        mask: (H, W) bool.
    """
    return float(np.mean(np.abs(np.asarray(saliency, dtype=np.float64) - mask)))


def s_measure(saliency: npt.ArrayLike, mask: Mask, alpha: float = 0.5) -> float:
    """Structure-measure: alpha of the object-aware and 1 - alpha of the region-aware likeness.

    Args:
        saliency: (H, W) in [0, 1].
        mask: (H, W) bool.
        alpha: weight of the objects.

    Returns:
        In [0, 1]. Of a mask without salient pixels 1 minus the map's mean, of one that is salient
        all over the map's mean.
    """
    values = np.asarray(saliency, dtype=np.float64)
    share = float(np.mean(mask))
    if share == 0:
        return 1 - float(values.mean())
    if share == 1:
        return float(values.mean())
    objects = share * _likeness(values[mask]) + (1 - share) * _likeness(1 - values[~mask])
    return max(0.0, alpha * objects + (1 - alpha) * _regions(values, mask))


def _likeness(values: Floats) -> float:
    """Of values that should all be 1: high and even (equation 5 with lambda = 1/2)."""
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) if values.size > 1 else 0.0
    return 2 * mean / (mean**2 + 1 + spread)


def _regions(values: Floats, mask: Mask) -> float:
    """Structural similarity of four quarters around the mask's centre, weighted by their areas."""
    row, column = (int(np.rint(c)) + 1 for c in np.argwhere(mask).mean(axis=0))
    total = 0.0
    for rows in (slice(None, row), slice(row, None)):
        for columns in (slice(None, column), slice(column, None)):
            part = mask[rows, columns]
            if part.size:
                total += part.size / mask.size * _similarity(values[rows, columns], part)
    return total


def _similarity(values: Floats, mask: Mask) -> float:
    """SSIM without its constants (equation 2): luminance, contrast and structure in one."""
    x, y = values.ravel(), mask.ravel().astype(np.float64)
    mean_x, mean_y = x.mean(), y.mean()
    others = max(x.size - 1, 1)
    var_x, var_y = ((x - mean_x) ** 2).sum() / others, ((y - mean_y) ** 2).sum() / others
    covariance = ((x - mean_x) * (y - mean_y)).sum() / others
    above = 4 * mean_x * mean_y * covariance
    below = (mean_x**2 + mean_y**2) * (var_x + var_y)
    if above == 0:
        return 1.0 if below == 0 else 0.0
    return float(above / below)
