"""The C engine of TV-L1 gives OpenCV's bits: over sizes, numbers, instruction sets, real clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from flowsight import flow
from flowsight.errors import InputError
from flowsight.flow import backends, tvl1_cpu, tvl1_gpu, tvl1_torch
from flowsight.flow.tvl1_numbers import PRESETS, read_numbers
from tests.conftest import missing
from tests.flow.test_tvl1_cpu import CUDA, FIXED, ONE_LEVEL, moved_pair, opencv

SAME_OPENCV = (
    hasattr(getattr(cv2, "optflow", None), "DualTVL1OpticalFlow")
    and cv2.__version__ == "5.0.0"
    and "*AVX2 " in cv2.getCPUFeaturesLine() + " "
)
needs_opencv = pytest.mark.skipif(
    not SAME_OPENCV, reason="other versions of OpenCV, and other CPUs, round elsewhere"
)

SIZES = [(60, 80), (61, 97), (33, 47), (17, 33), (16, 16), (40, 2), (2, 40), (5, 3)]
OTHER_NUMBERS: list[dict[str, Any]] = [
    {"lambda_": 0.3, "theta": 0.4, "tau": 0.2},
    {"lambda_": 0.05, "theta": 0.1, "tau": 0.3},
    {"scale_step": 0.5, "num_warps": 3, "outer_iterations": 1},
    {"scale_step": 0.7, "num_scales": 3},
    {"num_scales": 1, "num_warps": 7},
    {"median_filtering": 1},
    {"median_filtering": 3, "inner_iterations": 7},
    {"epsilon": 0.05},
]


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip where the package was installed without a C compiler."""
    monkeypatch.delenv("FLOWSIGHT_SIMD", raising=False)
    if not tvl1_cpu.available():
        missing("the CPU engine of TV-L1 is not built from this source; pip install -e .")


def same_on_all(first: np.ndarray, second: np.ndarray, **numbers: Any) -> np.ndarray:
    """Our flow (2, H, W), after a look whether all instruction sets agree on every bit."""
    pair = first[None], second[None]
    flows = [
        tvl1_cpu.solve(*pair, numbers=numbers, threads=1, simd=simd)[0]
        for simd in tvl1_cpu.library_info()["simd"]
    ]
    assert len({found.tobytes() for found in flows}) == 1
    return flows[0]


@needs_opencv
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("numbers", [{}, FIXED, ONE_LEVEL], ids=["defaults", "fixed", "one_level"])
def test_textures_have_opencvs_bits(size: tuple[int, int], numbers: dict[str, Any]) -> None:
    for seed in range(2):
        pair = moved_pair(*size, seed)
        np.testing.assert_array_equal(same_on_all(*pair, **numbers), opencv(*pair, **numbers))


@needs_opencv
@pytest.mark.parametrize("numbers", OTHER_NUMBERS)
def test_other_numbers_have_opencvs_bits(numbers: dict[str, Any]) -> None:
    pair = moved_pair(53, 71)
    np.testing.assert_array_equal(same_on_all(*pair, **numbers), opencv(*pair, **numbers))


@needs_opencv
@pytest.mark.parametrize("numbers", [{}, FIXED])
def test_float_frames_have_opencvs_bits(numbers: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    whole = [np.float32(frame) / np.float32(255) for frame in moved_pair(50, 66)]
    broken = [(f * 0.9 + rng.uniform(0, 0.1, f.shape)).astype(np.float32) for f in whole]
    for pair in (whole, broken):
        np.testing.assert_array_equal(same_on_all(*pair, **numbers), opencv(*pair, **numbers))


@needs_opencv
def test_flat_and_sharp_frames_have_opencvs_bits() -> None:
    """Where flow fades to the smallest numbers, and where it tears."""
    first, second = (np.full((90, 150), 90, np.uint8) for _ in range(2))
    first[20:40, 30:60], second[22:42, 33:63] = 200, 200
    noise = np.random.default_rng(1).integers(0, 256, (2, 48, 52)).astype(np.uint8)
    for pair in ((first, second), tuple(noise)):
        for numbers in ({}, FIXED):
            np.testing.assert_array_equal(same_on_all(*pair, **numbers), opencv(*pair, **numbers))


def real_pairs(shared_data: Path, step: int, indices: tuple[int, ...]) -> list[list[np.ndarray]]:
    """Grey frames (i, i + 1) of every `step`th real clip."""
    pairs = []
    for path in sorted((shared_data / "ucf101/videos").glob("*/*.avi"))[::step]:
        video = cv2.VideoCapture(str(path))
        frames = [
            cv2.cvtColor(video.read()[1], cv2.COLOR_BGR2GRAY) for _ in range(max(indices) + 2)
        ]
        pairs += [frames[i : i + 2] for i in indices]
    return pairs


@needs_opencv
@pytest.mark.slow
def test_real_clips_have_opencvs_bits(shared_data: Path) -> None:
    pairs = real_pairs(shared_data, 9, (2, 10))
    assert len(pairs) >= 8
    for pair in pairs:
        np.testing.assert_array_equal(same_on_all(*pair, **FIXED), opencv(*pair, **FIXED))
    for pair in pairs[::3]:
        np.testing.assert_array_equal(same_on_all(*pair), opencv(*pair))


def test_is_the_torch_reference_bit_for_bit() -> None:
    first, second = (frame[None] for frame in moved_pair(38, 45))
    numbers = {"num_scales": 3, "num_warps": 2}
    expected = tvl1_torch.solve(first, second, numbers=numbers)
    np.testing.assert_array_equal(tvl1_cpu.solve(first, second, numbers=numbers), expected)


def test_threads_and_order_leave_every_bit() -> None:
    pairs = [moved_pair(33, 47, seed) for seed in range(5)]
    first, second = (np.stack(frames) for frames in zip(*pairs, strict=True))
    expected = tvl1_cpu.solve(first, second, numbers={"exact": True}, threads=1)
    for threads in (2, 3):
        found = tvl1_cpu.solve(first[::-1], second[::-1], numbers={}, threads=threads)[::-1]
        assert found.tobytes() == expected.tobytes()


def test_who_is_exact_by_default() -> None:
    pair = moved_pair(40, 52)
    found = flow.tvl1(*pair, backend="cpu")
    np.testing.assert_array_equal(found, flow.tvl1(*pair, backend="cpu", exact=True))
    faster = flow.tvl1(*pair, backend="cpu", exact=False)
    assert (faster != found).any()
    assert np.abs(faster - found).mean() < 0.02
    np.testing.assert_array_equal(faster, flow.tvl1(*pair, preset="near", backend="cpu"))
    quick = flow.tvl1(*pair, preset="fast", backend="cpu")
    np.testing.assert_array_equal(
        quick, flow.tvl1(*pair, preset="fast", backend="cpu", exact=False)
    )
    assert PRESETS["fast"]["exact"] is False


def test_engines_that_are_always_exact_disregard_it() -> None:
    pair = moved_pair(24, 30)
    numbers = {"num_scales": 1, "num_warps": 1, "outer_iterations": 1}
    for backend in ("torch", "opencv"):
        flows = [flow.tvl1(*pair, backend=backend, exact=e, **numbers) for e in (True, False, None)]
        assert len({found.tobytes() for found in flows}) == 1


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"exact": 1}, "true or false"),
        ({"exact": "yes"}, "'yes'"),
        ({**CUDA, "exact": True}, "cpu"),
    ],
)
def test_wrong_settings_are_named(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_numbers(numbers)


def test_the_gpu_engine_refuses_it() -> None:
    frames = np.zeros((1, 20, 20), np.uint8)
    with pytest.raises(InputError, match="exact to be unset"):
        tvl1_gpu.solve(frames, frames, numbers={"exact": True})
    with pytest.raises(InputError, match="exact to be unset"):
        backends.solver("tvl1", "opencv", "gpu", threads=None, overrides={"exact": True})
