"""Localisation measures: exact small cases and chance level."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from flowsight.metrics import localization as loc

MASK = np.array([[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]], dtype=bool)
MAP = np.array([[0.0, 0.4, 1.0, 0.6], [0.0, 0.5, 0.2, 0.0], [0.3, 0.0, 0.0, 0.0]])


def test_exact() -> None:
    assert loc.pointing_game(MAP, MASK) == 1
    assert loc.energy_in_mask(MAP, MASK) == pytest.approx(2.1 / 3.0)
    # at 0.5 of the maximum: 1.0, 0.6, 0.5 are strong; two of them in the mask of four
    assert loc.iou(MAP, MASK) == pytest.approx(2 / 5)
    assert loc.iou(MAP, MASK, threshold=0.2) == pytest.approx(4 / 6)
    assert loc.chance(MASK) == pytest.approx(4 / 12)


def test_scale_of_the_map_does_not_matter() -> None:
    for measure in (loc.pointing_game, loc.energy_in_mask, loc.iou):
        assert measure(7.5 * MAP, MASK) == pytest.approx(measure(MAP, MASK))
    assert loc.iou((MAP * 250).astype(np.uint8), MASK) == loc.iou(MAP, MASK)


def test_miss_tolerance_and_ties() -> None:
    miss = np.zeros((3, 4))
    miss[2, 0] = 1
    assert loc.pointing_game(miss, MASK) == 0
    assert loc.pointing_game(miss, MASK, tolerance_px=1) == 1
    ties = np.zeros((3, 4))
    ties[0, 0] = ties[0, 1] = 1
    assert loc.pointing_game(ties, MASK) == 0.5


def test_tolerance_is_a_square_neighbourhood() -> None:
    mask = np.zeros((9, 9), dtype=bool)
    mask[4, 4] = True
    grown = loc._dilated(mask, 2)
    assert grown[2:7, 2:7].all() and grown.sum() == 25
    assert loc._dilated(mask, 50).all()


def test_constant_map_scores_chance() -> None:
    constant = np.full(MASK.shape, 0.7)
    for measure in (loc.pointing_game, loc.energy_in_mask, loc.iou):
        assert measure(constant, MASK) == pytest.approx(float(loc.chance(MASK)))


def test_random_points_hit_by_chance() -> None:
    rng = np.random.default_rng(0)
    maps = rng.random((4000, 3, 4))
    hits = loc.pointing_game(maps, np.broadcast_to(MASK, maps.shape))
    assert hits.mean() == pytest.approx(1 / 3, abs=0.03)


def test_vectorised_over_frames() -> None:
    rng = np.random.default_rng(1)
    maps, masks = rng.random((2, 3, 5, 6)), rng.random((2, 3, 5, 6)) > 0.6
    for measure in (loc.pointing_game, loc.energy_in_mask, loc.iou):
        many = measure(maps, masks)
        assert many.shape == (2, 3)
        single = [[float(measure(maps[i, j], masks[i, j])) for j in range(3)] for i in range(2)]
        np.testing.assert_allclose(many, single)


def test_nothing_shown_scores_zero_and_nothing_to_find_scores_nan() -> None:
    empty = np.zeros_like(MAP)
    for measure in (loc.pointing_game, loc.energy_in_mask, loc.iou):
        assert measure(empty, MASK) == 0
        assert np.isnan(measure(MAP, np.zeros_like(MASK)))
    assert np.isnan(loc.chance(np.zeros_like(MASK)))


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match="one shape"):
        loc.iou(MAP[:2], MASK)
    with pytest.raises(ValueError, match="non-negative"):
        loc.iou(-MAP, MASK)
    with pytest.raises(ValueError, match="threshold"):
        loc.iou(MAP, MASK, threshold=0.0)


def test_loads_no_torch() -> None:
    code = "import sys, flowsight.metrics.localization; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
