"""Measures and their differences: exact small cases, and against an independent computation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from flowsight.metrics.bootstrap import Hits, resampled_means
from flowsight.metrics.change_detection import Counts
from flowsight.registry import comparing
from flowsight.systems.background import judge


def counted(video: str, counts: list[tuple[int, int, int]]) -> pd.DataFrame:
    """Frames of a video with tp, fp, fn."""
    rows = [(f"{video}/{i + 1:06d}", *c, 100) for i, c in enumerate(counts)]
    return judge.scored(pd.DataFrame(rows, columns=["item_id", "tp", "fp", "fn", "tn"]))


def test_items_without_a_group_are_a_mean() -> None:
    scores = pd.DataFrame({"item_id": ["b", "a", "c"], "score": [1.0, 0.5, 0.0]})
    found = comparing.blocks(scores, 10)
    assert found[""].items == (("a",), ("b",), ("c",))
    assert comparing.measure(found) == 0.5
    assert np.isnan(comparing.measure(comparing.blocks(scores[:0], 10)))


def test_of_frames_it_is_the_mean_over_videos_of_the_f_measure_of_summed_counts() -> None:
    one, two = [(10, 2, 3), (0, 4, 0), (7, 0, 1)], [(1, 1, 1), (0, 0, 0)]
    table = pd.concat([counted("a/x", one), counted("b/y", two)])
    totals = [Counts(tp=17, fp=6, fn=4), Counts(tp=1, fp=1, fn=1)]
    expected = np.mean([total.f_measure for total in totals])
    for block in (1, 2, 50):
        assert comparing.measure(comparing.blocks(table, block)) == pytest.approx(expected)
    assert table["score"].tolist()[-1] == 1.0  # nothing moves, nothing was found


@pytest.mark.parametrize(("count", "block", "sizes"), [
    (45, 10, [12, 11, 11, 11]), (9, 10, [9]), (20, 10, [10, 10]), (3, 1, [1, 1, 1]),
])  # fmt: skip
def test_blocks_are_consecutive_and_never_shorter_than_asked(
    count: int, block: int, sizes: list[int]
) -> None:
    table = counted("a/x", [(1, 0, 0)] * count).sample(frac=1, random_state=0)
    found = comparing.blocks(table, block)["a/x"].items
    assert [len(names) for names in found] == sizes
    assert [n for names in found for n in names] == [f"a/x/{i + 1:06d}" for i in range(count)]


def test_gains_are_those_of_the_evaluations_own_bootstrap_where_items_are_drawn() -> None:
    rng = np.random.default_rng(0)
    own, theirs = (rng.random(30) for _ in range(2))
    names = [f"{i:02d}" for i in range(30)]
    made = [
        comparing.blocks(pd.DataFrame({"item_id": names, "score": values}), 10)
        for values in (own, theirs)
    ]
    gains = comparing.resampled_gains(*made, num_samples=200, seed=3)
    hits = Hits(items=np.arange(30), values=own - theirs)
    expected = resampled_means([hits], num_samples=200, seed=3)
    np.testing.assert_allclose(gains, expected, rtol=0, atol=1e-12)


def test_frames_drawn_one_by_one_would_be_far_too_sure() -> None:
    """Neighbours say the same: runs of 10 frames in which one model finds all, or the other."""
    rng = np.random.default_rng(1)
    good = np.repeat(rng.random(20) < 0.5, 10)
    own = counted("a/x", [(10, 0, 0) if g else (5, 0, 5) for g in good])
    theirs = counted("a/x", [(5, 0, 5) if g else (10, 0, 0) for g in good])
    spread = {
        block: comparing.resampled_gains(
            comparing.blocks(own, block), comparing.blocks(theirs, block), num_samples=500, seed=1
        ).std()
        for block in (1, 10)
    }
    assert 2.5 < spread[10] / spread[1] < 4  # sqrt(10)


def test_videos_are_fixed() -> None:
    """Two videos whose frames all agree: nothing is unsure, for nothing is said of others."""
    own = pd.concat([counted("a/x", [(8, 1, 1)] * 30), counted("b/y", [(3, 2, 5)] * 30)])
    theirs = pd.concat([counted("a/x", [(7, 1, 2)] * 30), counted("b/y", [(4, 2, 4)] * 30)])
    made = [comparing.blocks(one, 10) for one in (own, theirs)]
    gains = comparing.resampled_gains(*made, num_samples=100, seed=1)
    expected = comparing.measure(made[0]) - comparing.measure(made[1])
    np.testing.assert_allclose(gains, expected, rtol=0, atol=1e-12)
