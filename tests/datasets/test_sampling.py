"""Frame indices, exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowsight.batches import sampling


@pytest.mark.parametrize(
    ("num_items", "stack_length", "expected"),
    [(10, 1, 10), (10, 5, 6), (5, 5, 1), (3, 5, 1), (1, 1, 1)],
)
def test_positions_have_a_whole_stack(num_items: int, stack_length: int, expected: int) -> None:
    assert sampling.count_positions(num_items, stack_length) == expected


@pytest.mark.parametrize(
    ("num_positions", "num_views", "expected"),
    [
        (10, 1, [5]),
        (9, 3, [1, 4, 7]),
        (10, 3, [1, 5, 8]),  # middles 1.67, 5, 8.33
        (100, 4, [12, 37, 62, 87]),
        (2, 5, [0, 0, 1, 1, 1]),
        (1, 3, [0, 0, 0]),
    ],
)
def test_even_positions(num_positions: int, num_views: int, expected: list[int]) -> None:
    assert sampling.even_positions(num_positions, num_views).tolist() == expected


def test_even_positions_mirror_in_time() -> None:
    for num_positions in (7, 16, 31):
        ours = sampling.even_positions(num_positions, num_positions)
        assert ours.tolist() == list(range(num_positions))


def test_random_positions_stay_in_their_segments() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([sampling.random_positions(10, 3, rng) for _ in range(500)])
    segments = [{0, 1, 2}, {3, 4, 5}, {6, 7, 8, 9}]
    for segment, column in zip(segments, drawn.T, strict=True):
        assert set(column.tolist()) == segment, "each position of the segment, and no other"


def test_one_segment_covers_the_clip() -> None:
    rng = np.random.default_rng(0)
    drawn = {int(sampling.random_positions(6, 1, rng)[0]) for _ in range(300)}
    assert drawn == set(range(6))


def test_more_segments_than_positions_repeat() -> None:
    drawn = sampling.random_positions(2, 5, np.random.default_rng(0))
    assert drawn.tolist() == [0, 0, 0, 1, 1]


def test_random_positions_depend_on_the_generator_alone() -> None:
    one = sampling.random_positions(50, 7, np.random.default_rng((1, 2, 3)))
    two = sampling.random_positions(50, 7, np.random.default_rng((1, 2, 3)))
    other = sampling.random_positions(50, 7, np.random.default_rng((1, 2, 4)))
    assert one.tolist() == two.tolist() != other.tolist()


def test_stacks_repeat_the_last_item() -> None:
    stacks = sampling.stack_indices(np.array([0, 3]), 3, 5)
    assert stacks.tolist() == [[0, 1, 2], [3, 4, 4]]
    assert sampling.stack_indices(np.array([0]), 4, 2).tolist() == [[0, 1, 1, 1]]


@pytest.mark.parametrize(
    ("source", "count", "expected"),
    [
        # every 25/16 = 1.5625 frames
        (25, 13, [0, 1, 3, 4, 6, 7, 9, 10, 12]),
        # NTSC: every 1.873 frames; 15 frames last 0.5005 s, so output 8 at 0.5 s still shows 14
        (30000 / 1001, 15, [0, 1, 3, 5, 7, 9, 11, 13, 14]),
        (29.97, 15, [0, 1, 3, 5, 7, 9, 11, 13, 14]),
        # slower sources repeat: every 0.75 frames
        (12, 6, [0, 0, 1, 2, 3, 3, 4, 5]),
        (8, 3, [0, 0, 1, 1, 2, 2]),
        (16, 4, [0, 1, 2, 3]),
        (32, 5, [0, 2, 4]),
        (25, 1, [0]),
    ],
)
def test_resampling_to_16_hz(source: float, count: int, expected: list[int]) -> None:
    indices = sampling.resampled_indices(count, source, 16)
    assert indices.tolist() == expected and indices.dtype == np.int64


@given(
    st.integers(1, 400),
    st.sampled_from([6.0, 12.0, 15.0, 23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 59.94, 120.0]),
    st.sampled_from([8.0, 12.5, 16.0, 25.0, 60.0]),
)
def test_resampling_shows_what_is_seen_at_that_time(count: int, source: float, fps: float) -> None:
    indices = sampling.resampled_indices(count, source, fps)
    times = np.arange(len(indices)) / fps
    slack = 1e-9
    assert (indices / source <= times + slack).all(), "not before it is shown"
    assert (times < (indices + 1) / source + slack).all(), "and not after"
    assert times[-1] < count / source + slack <= len(indices) / fps + 2 * slack, "the whole clip"
    assert indices[0] == 0 and indices[-1] <= count - 1


def test_resampling_refuses_no_rate() -> None:
    for source, fps in ((0, 16), (25, 0), (float("nan"), 16)):
        with pytest.raises(ValueError, match="positive frame rates"):
            sampling.resampled_indices(4, source, fps)
