"""Saliency metrics on maps worked out by hand, and against another implementation's numbers."""

from __future__ import annotations

import numpy as np
import pytest

from flowsight.metrics import saliency

MASK = np.array([[True, True, False], [False, False, False]])


def golden_case(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Map (24, 32) uint8 and mask; the golden numbers were made on exactly these."""
    rows, columns = np.mgrid[:24, :32]

    def disc(row: int, column: int, radius: int) -> np.ndarray:
        inside: np.ndarray = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        return inside

    if name == "disc":
        mask = disc(11, 14, 7)
        values = 255 * np.exp(-(((rows - 10) ** 2 + (columns - 16) ** 2) / 64))
    elif name == "two":
        mask = disc(7, 7, 4) | disc(15, 24, 5)
        values = 200 * disc(8, 8, 5) + ((rows * 7 + columns * 13) % 50)
    elif name == "thin":
        mask = (rows >= 20) & (columns < 30)
        values = (rows * 10) % 256 + (columns % 3)
    else:
        mask = disc(12, 16, 6)
        values = 90 + 20 * disc(12, 16, 6) + (columns % 5)
    return np.rint(values).astype(np.uint8), mask


# pysodmetrics 1.6.2 in an environment of its own (`uv venv; uv pip install pysodmetrics==1.6.2`):
# step(map / 255, mask, normalize=False) of Smeasure, MAE and Fmeasure on the maps of `golden_case`;
# its curves go from threshold 255 down, so curve[::-1][t] is threshold t.
GOLDEN = {
    "disc": {
        "s": 0.788778035761,
        "mae": 0.183573325163,
        "max_f": 0.8276816609,
        "f_128": 0.79944598338,
        "precision_128": 0.810218978102,
        "recall_64": 1.0,
        "mean_f": 0.596801303434,
    },
    "two": {
        "s": 0.515092797052,
        "mae": 0.199142156863,
        "max_f": 0.541666666667,
        "f_128": 0.541666666667,
        "precision_128": 0.623188405797,
        "recall_64": 0.377192982456,
        "mean_f": 0.438095087094,
    },
    "thin": {
        "s": 0.53528787342,
        "mae": 0.346323529412,
        "max_f": 0.951219512195,
        "f_128": 0.40206185567,
        "precision_128": 0.340909090909,
        "recall_64": 1.0,
        "mean_f": 0.407993466406,
    },
    "faint": {
        "s": 0.492225523548,
        "mae": 0.388791870915,
        "max_f": 1.0,
        "f_128": 0.0,
        "precision_128": 0.0,
        "recall_64": 1.0,
        "mean_f": 0.14290559257,
    },
}


@pytest.mark.parametrize("name", GOLDEN)
def test_against_pysodmetrics(name: str) -> None:
    levels, mask = golden_case(name)
    tp, fp = saliency.threshold_counts(levels, mask)
    fn = mask.sum() - tp
    curve = saliency.f_beta(tp, fp, fn)
    found = {
        "s": saliency.s_measure(levels / 255, mask),
        "mae": saliency.mean_absolute_error(levels / 255, mask),
        "max_f": curve.max(),
        "f_128": curve[128],
        "precision_128": saliency.precision(tp, fp)[128],
        "recall_64": saliency.recall(tp, fn)[64],
        "mean_f": curve.mean(),
    }
    assert found == pytest.approx(GOLDEN[name], abs=1e-9)


def test_counts_and_f_by_hand() -> None:
    predicted = np.array([[True, False, True], [True, False, False]])
    assert saliency.confusion(predicted, MASK) == (1, 2, 1, 2)
    # P = 1/3, R = 1/2: 1.3 * P * R / (0.3 P + R) = (1.3 / 6) / 0.6
    assert saliency.f_beta(1, 2, 1) == pytest.approx(1.3 / 6 / 0.6)
    assert saliency.f_beta(1, 2, 1, beta2=1.0) == pytest.approx(2 * (1 / 6) / (5 / 6))
    assert (saliency.precision(1, 2), saliency.recall(1, 1)) == (pytest.approx(1 / 3), 0.5)


def test_nothing_said_and_nothing_there() -> None:
    assert saliency.f_beta(0, 0, 4) == 0  # nothing said
    assert saliency.f_beta(0, 0, 0) == 0  # nothing there either: the field counts it as 0
    assert (saliency.precision(0, 0), saliency.recall(0, 0)) == (0, 0)
    none = np.zeros((2, 3), bool)
    assert saliency.s_measure(np.full((2, 3), 0.25), none) == 0.75
    assert saliency.s_measure(np.full((2, 3), 0.25), ~none) == 0.25


def test_thresholds_count_pixels_at_or_above() -> None:
    levels = np.array([[255, 7, 7], [0, 8, 255]], np.uint8)
    tp, fp = saliency.threshold_counts(levels, MASK)
    for threshold in (0, 7, 8, 9, 255):
        want = saliency.confusion(levels >= threshold, MASK)[:2]
        assert (tp[threshold], fp[threshold]) == want, threshold


def test_a_perfect_map_and_its_opposite() -> None:
    mask = golden_case("disc")[1]
    assert saliency.s_measure(mask.astype(float), mask) == pytest.approx(1)
    assert saliency.s_measure((~mask).astype(float), mask) == 0
    assert saliency.mean_absolute_error(mask, mask) == 0
    assert saliency.mean_absolute_error(~mask, mask) == 1


def test_s_measure_of_four_pixels_by_hand() -> None:
    """One salient pixel in the corner: the quarters are 1x1, 1x1, 1x1, 1x1."""
    mask = np.array([[True, False], [False, False]])
    values = np.array([[0.6, 0.2], [0.2, 0.2]])
    # objects: 1/4 * 2 * 0.6 / (0.36 + 1) and, of the rest's 0.8, 3/4 * 1.6 / 1.64
    objects = 0.25 * 1.2 / 1.36 + 0.75 * 1.6 / 1.64
    # a single pixel has no spread: every quarter counts as alike
    assert saliency.s_measure(values, mask) == pytest.approx(0.5 * objects + 0.5)


def test_an_object_at_the_border_leaves_empty_quarters() -> None:
    mask = np.zeros((4, 4), bool)
    mask[3] = True  # the centre is in the last row: nothing lies below it
    assert saliency.s_measure(mask.astype(float), mask) == pytest.approx(1)


def test_mirrored_maps_score_the_same_counts() -> None:
    levels, mask = golden_case("two")
    for one, other in zip(
        saliency.threshold_counts(levels, mask),
        saliency.threshold_counts(levels[:, ::-1], mask[:, ::-1]),
        strict=True,
    ):
        assert (one == other).all()
