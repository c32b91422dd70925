"""Arithmetic whose bits do not hang on the processor.

NumPy and BLAS choose their code by what instructions a CPU has (a vectorised sine with AVX-512,
fused multiplications and additions in products of matrices), and these differ in the last bits:
enough to turn a rounding now and then. So transcendental functions are rounded to a grid far
coarser than such differences, and products are written as the multiplications and additions that
IEEE 754 defines to the bit. Angles are in radians; a number gives a number, an array an array.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_DECIMALS = 10


def _on_grid(values: Any) -> Any:
    return np.round(values, _DECIMALS) + 0.0  # no negative zero


def sin(angle: Any) -> Any:
    """Sine, to ten decimals."""
    return _on_grid(np.sin(angle))


def cos(angle: Any) -> Any:
    """Cosine, to ten decimals."""
    return _on_grid(np.cos(angle))


def tanh(values: Any) -> Any:
    """Hyperbolic tangent, to ten decimals."""
    return _on_grid(np.tanh(values))


def arccos(cosine: Any) -> Any:
    """Angle in [0, pi] of a cosine, which is put into [-1, 1] first; to ten decimals."""
    return _on_grid(np.arccos(np.clip(cosine, -1, 1)))


def arctan2(y: Any, x: Any) -> Any:
    """Angle of the point (x, y), to ten decimals."""
    return _on_grid(np.arctan2(y, x))


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Matrix (3, 3) that applies `inner` first: the product of two matrices."""
    columns, rows = outer[:, :, None], inner[None, :, :]
    return np.asarray(columns[:, 0] * rows[:, 0] + columns[:, 1] * rows[:, 1]
                      + columns[:, 2] * rows[:, 2])  # fmt: skip


def transform(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a (3, 3) affine matrix to (..., 2) points."""
    x, y = points[..., 0], points[..., 1]
    moved = [matrix[i, 0] * x + matrix[i, 1] * y + matrix[i, 2] for i in range(2)]
    return np.stack(moved, axis=-1)


def invert(matrix: np.ndarray) -> np.ndarray:
    """The way back of a (3, 3) affine matrix that has one."""
    (a, b, x), (c, d, y) = matrix[:2]
    area = a * d - b * c
    back = np.array([[d, -b], [-c, a]]) / area
    (e, f), (g, h) = back
    return np.array([[e, f, -(e * x + f * y)], [g, h, -(g * x + h * y)], [0.0, 0.0, 1.0]])
