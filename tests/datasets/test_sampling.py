"""Frame indices, exactly."""

from __future__ import annotations

import numpy as np
import pytest

from flowsight.datasets import sampling


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
