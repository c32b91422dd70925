"""Quantised flow against plain loops, its error bound, and the mirror law."""

from __future__ import annotations

import numpy as np
import pytest

from flowsight.errors import InputError
from flowsight.flow.quantize import dequantize, mirror, quantize


def level(value: float, bound_px: float) -> int:
    """The formula in plain Python (round() goes to even, as rint)."""
    return round((min(max(value, -bound_px), bound_px) + bound_px) * 255 / (2 * bound_px))


@pytest.mark.parametrize("bound_px", [20.0, 15.0, 0.7])
def test_levels_against_plain_loops(bound_px: float) -> None:
    flow = np.random.default_rng(0).normal(0, bound_px, (2, 20, 30)).astype(np.float32)
    expected = [[[level(float(v), bound_px) for v in row] for row in plane] for plane in flow]
    found = quantize(flow, bound_px)
    assert found.dtype == np.uint8
    assert found.tolist() == expected


def test_exact_values() -> None:
    flow = np.array([-25.0, -20.0, 0.0, 20.0, np.inf, -np.inf])
    assert quantize(flow, 20.0).tolist() == [0, 0, 128, 255, 255, 0]
    levels = np.array([0, 255], np.uint8)
    assert dequantize(levels, 20.0).tolist() == [-20.0, 20.0]


@pytest.mark.parametrize("bound_px", [20.0, 8.0])
def test_round_trip_error_is_half_a_level(bound_px: float) -> None:
    flow = np.linspace(-bound_px, bound_px, 4001).astype(np.float32)
    error = np.abs(dequantize(quantize(flow, bound_px), bound_px) - flow)
    assert error.max() <= bound_px / 255 * (1 + 1e-5)
    every = np.arange(256, dtype=np.uint8)
    assert (quantize(dequantize(every, bound_px), bound_px) == every).all()


def test_mirror_is_negation() -> None:
    every = np.arange(256, dtype=np.uint8)
    assert (dequantize(mirror(every), 20.0) == -dequantize(every, 20.0)).all()
    assert (mirror(mirror(every)) == every).all()


def test_input_stays_as_it_was() -> None:
    flow = np.full((2, 3, 4), 30.0, np.float32)
    quantize(flow, 20.0)
    assert (flow == 30).all()


def test_wrong_input() -> None:
    with pytest.raises(InputError, match="NaN"):
        quantize(np.array([np.nan]), 20.0)
    for bound_px in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="bound_px"):
            quantize(np.zeros(1), bound_px)
    with pytest.raises(InputError, match="uint8"):
        dequantize(np.zeros(1), 20.0)
    with pytest.raises(InputError, match="uint8"):
        mirror(np.zeros(1))
