"""Intervals from resampled clips."""

import numpy as np
import pytest
from scipy import stats

from flowsight.metrics.bootstrap import Hits, Resampling, interval, resampled_means


def hits(values: np.ndarray, start: int = 0) -> Hits:
    return Hits(items=np.arange(start, start + len(values)), values=values.astype(float))


def test_equals_scipy_about() -> None:
    values = (np.random.default_rng(0).random(120) < 0.7).astype(float)
    ends = interval([hits(values)], Resampling(num_samples=4000, confidence=0.95, seed=1))
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert ends == pytest.approx((expected.low, expected.high), abs=0.02)


def test_same_seed_same_interval_and_chunks_do_not_matter() -> None:
    split = hits(np.arange(10) % 2)
    first = resampled_means([split], num_samples=130, seed=4)
    assert (first == resampled_means([split], num_samples=130, seed=4)).all()
    assert (first[:70] == resampled_means([split], num_samples=70, seed=4)).all()
    assert (first != resampled_means([split], num_samples=130, seed=5)).any()


def test_all_right_has_no_width_and_zero_draws_no_interval() -> None:
    settings = Resampling(num_samples=50, confidence=0.9, seed=0)
    assert interval([hits(np.ones(9))], settings) == (1.0, 1.0)
    none = Resampling(num_samples=0, confidence=0.9, seed=0)
    assert interval([hits(np.ones(9))], none) is None


def test_splits_weigh_the_same_whatever_their_size() -> None:
    splits = [hits(np.ones(40)), hits(np.zeros(4), start=40)]
    means = resampled_means(splits, num_samples=200, seed=0)
    # a draw without any clip of the small split leaves it out
    assert set(np.round(means, 9)) <= {0.5, 1.0}
    assert np.median(means) == 0.5


def test_a_clip_of_two_splits_is_drawn_once_for_both() -> None:
    values = np.arange(8) % 2
    one = resampled_means([hits(values)], num_samples=20, seed=3)
    two = resampled_means([hits(values), hits(values)], num_samples=20, seed=3)
    assert two == pytest.approx(one)
