"""Counting against masks made by hand, one for every grey level."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from flowsight.metrics import change_detection
from flowsight.metrics.change_detection import Counts, count, scored_pixels, total

BACKGROUND, NOTHING = ("tn", "fp"), (None, None)
# grey level -> what a pixel counts as where nothing is found there, and where something is
RULES = {0: BACKGROUND, 50: BACKGROUND, 85: NOTHING, 170: NOTHING, 255: ("fn", "tp")}


def counts_of(*names: str | None) -> Counts:
    return Counts(**{name: names.count(name) for name in ("tp", "fp", "fn", "tn")})


@pytest.mark.parametrize(("level", "found"), itertools.product(RULES, (False, True)))
def test_every_grey_level(level: int, found: bool) -> None:
    truth = np.full((2, 3), level, np.uint8)
    predicted = np.zeros((2, 3), bool)
    predicted[0, 1] = predicted[1, 2] = found
    expected = [RULES[level][int(p)] for p in predicted.ravel()]
    assert count(predicted, truth) == counts_of(*expected)
    assert scored_pixels(truth).all() == (expected[0] is not None)


def test_a_mask_of_all_levels_and_a_region() -> None:
    truth = np.array([[0, 50, 85, 170, 255], [255, 170, 85, 50, 0]], np.uint8)
    predicted = np.array([[1, 0, 1, 1, 1], [0, 0, 0, 1, 0]], bool)
    assert count(predicted, truth) == Counts(tp=1, fp=2, fn=1, tn=2)
    region = np.array([[0, 1, 1, 1, 1], [0, 1, 1, 1, 1]], bool)  # the first column is outside
    assert count(predicted, truth, region) == Counts(tp=1, fp=1, fn=0, tn=2)
    assert scored_pixels(truth, region).tolist() == [
        [False, True, False, False, True],
        [False, False, False, True, True],
    ]


def test_measures_of_known_counts() -> None:
    counts = Counts(tp=6, fp=2, fn=4, tn=88)
    assert counts.recall == 6 / 10
    assert counts.precision == 6 / 8
    assert counts.f_measure == pytest.approx(2 * 0.6 * 0.75 / (0.6 + 0.75))
    empty = Counts(tn=5)
    assert all(math.isnan(v) for v in (empty.recall, empty.precision, empty.f_measure))
    assert Counts(fn=3).f_measure == 0.0
    assert Counts(fp=3).f_measure == 0.0


def test_a_video_is_the_sum_of_its_frames() -> None:
    frames = [Counts(tp=1, fn=9), Counts(tp=90, fp=10), Counts()]
    video = total(frames)
    assert video == Counts(tp=91, fp=10, fn=9)
    assert video.recall == 0.91  # the mean over frames would be 0.55


LEVELS = st.sampled_from(change_detection.LEVELS)


@given(st.lists(st.tuples(LEVELS, st.booleans()), min_size=1, max_size=40))
def test_measures_are_those_of_scikit_learn(pixels: list[tuple[int, bool]]) -> None:
    truth = np.array([[level for level, _ in pixels]], np.uint8)
    predicted = np.array([[found for _, found in pixels]])
    scored = np.isin(truth, (0, 50, 255))
    counts = count(predicted, truth)
    assert counts.tp + counts.fp + counts.fn + counts.tn == scored.sum()
    if not scored.any():
        return
    precision, recall, f_measure, _ = precision_recall_fscore_support(
        truth[scored] == 255, predicted[scored], average="binary", pos_label=True,
        zero_division=np.nan,
    )  # fmt: skip
    ours = (counts.precision, counts.recall, counts.f_measure)
    np.testing.assert_allclose(ours, (precision, recall, f_measure), rtol=1e-12)


def test_mistakes_are_named() -> None:
    truth, found = np.zeros((2, 3), np.uint8), np.zeros((2, 3), bool)
    with pytest.raises(ValueError, match="got 7, 254"):
        count(found, np.array([[0, 7, 254]] * 2, np.uint8))
    with pytest.raises(ValueError, match=r"shape \(2, 3\), got uint8 \(2, 3\)"):
        count(found.astype(np.uint8), truth)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"shape \(2, 3\), got bool \(3, 2\)"):
        count(found.T, truth)
    with pytest.raises(ValueError, match=r"region of shape \(2, 3\), got \(3, 2\)"):
        count(found, truth, np.ones((3, 2), bool))
