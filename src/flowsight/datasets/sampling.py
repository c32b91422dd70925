"""Which frames or flow stacks of a clip a network sees (TSN's segments, evenly drawn views).

A *position* is where a stack of `stack_length` items starts. Of `num_items` frames or flow fields,
`num_items - stack_length + 1` positions have a whole stack. Everything here is a pure function of
counts and, for training, of a random generator. Wang et al. 2016, "Temporal segment networks".
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


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
