"""Which frames or flow stacks of a clip a network sees (TSN's segments, evenly drawn views).

A *position* is where a stack of `stack_length` items starts. Of `num_items` frames or flow fields,
`num_items - stack_length + 1` positions have a whole stack. Everything here is a pure function of
counts and, for training, of a random generator. Wang et al. 2016, "Temporal segment networks".
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def resampled_indices(num_items: int, source_fps: float, fps: float) -> Indices:
    """Items of a clip brought to another frame rate by their time stamps.

    Item i is seen from i / source_fps until (i + 1) / source_fps; output j shows what is seen at
    j / fps. So items are left out where the source is faster and repeated where it is slower. Rates
    are taken as the fractions they stand for (29.97 as printed by a header is 30000 / 1001 or
    2997 / 100), so that no rounding decides at a boundary. A flow field keeps the motion between
    two neighbouring source frames, whatever lies between two outputs.

    Args:
        num_items: frames or flow fields of the clip, at least 1.
        source_fps: of the clip, Hz.
        fps: wanted, Hz.

    Returns:
        (M,) non-decreasing, in [0, num_items), from 0: as many as fit into the clip's duration.

    Raises:
        ValueError: a rate that is not positive.
    """
    if not (source_fps > 0 and fps > 0):
        raise ValueError(f"expected positive frame rates, got {source_fps:g} and {fps:g} Hz")
    step = _fraction(source_fps) / _fraction(fps)
    count = -(-num_items * step.denominator // step.numerator)  # rounded up
    outputs = np.arange(count, dtype=np.int64)
    indices: Indices = outputs * step.numerator // step.denominator
    return indices


def _fraction(rate: float) -> Fraction:
    return Fraction(rate).limit_denominator(1001)


def count_positions(num_items: int, stack_length: int) -> int:
    """Positions with a whole stack; a clip too short for one still has a single position.

    Args:
        num_items: frames or flow fields of the clip, at least 1.
        stack_length: items in a stack, at least 1.
    """
    return max(1, num_items - stack_length + 1)


def random_positions(num_positions: int, num_segments: int, rng: np.random.Generator) -> Indices:
    """One random position in each of `num_segments` equal segments (training).

    Segment s covers [s * P / S, (s + 1) * P / S) rounded down; a segment narrower than one
    position gives its first.

    Args:
        num_positions: P, at least 1.
        num_segments: S, at least 1.
        rng: source of chance.

    Returns:
        (S,) non-decreasing, in [0, P).
    """
    edges = np.arange(num_segments + 1, dtype=np.int64) * num_positions // num_segments
    return rng.integers(edges[:-1], np.maximum(edges[1:], edges[:-1] + 1))


def even_positions(num_positions: int, num_views: int) -> Indices:
    """Middles of `num_views` equal parts of the clip (validation and test).

    Args:
        num_positions: P, at least 1.
        num_views: V, at least 1; more views than positions repeat positions.

    Returns:
        (V,) non-decreasing, in [0, P): floor((v + 1/2) * P / V).
    """
    views = np.arange(num_views, dtype=np.int64)
    return (2 * views + 1) * num_positions // (2 * num_views)


def stack_indices(positions: Indices, stack_length: int, num_items: int) -> Indices:
    """Items of the stacks at these positions; beyond the end the last item repeats.

    Args:
        positions: (N,) starts.
        stack_length: L.
        num_items: frames or flow fields of the clip.

    Returns:
        (N, L) in [0, num_items).
    """
    indices = np.asarray(positions, dtype=np.int64)[:, None] + np.arange(stack_length)
    return np.minimum(indices, num_items - 1)
