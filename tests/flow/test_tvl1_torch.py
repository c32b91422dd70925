"""The torch reference of TV-L1 against OpenCV, and its properties; its parts: test_tvl1_steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from flowsight.errors import InputError
from flowsight.flow import quantize, tvl1_torch
from flowsight.flow.tvl1_numbers import PRESETS

CONTRIB = hasattr(getattr(cv2, "optflow", None), "DualTVL1OpticalFlow")
# 4.x rounds the warp's positions to 1/32 px
OPENCV_5 = int(cv2.__version__.split(".")[0]) >= 5
needs_oracle = pytest.mark.skipif(
    not (CONTRIB and OPENCV_5), reason="needs OpenCV 5 with contrib for its DualTVL1"
)

OPENCV_NAMES = {
    "lambda_": "lambda_",
    "num_scales": "nscales",
    "num_warps": "warps",
    "inner_iterations": "innnerIterations",  # OpenCV spells it with three n
    "outer_iterations": "outerIterations",
    "scale_step": "scaleStep",
    "median_filtering": "medianFiltering",
}


def opencv(previous: np.ndarray, following: np.ndarray, **numbers: Any) -> np.ndarray:
    given = {name: value for name, value in numbers.items() if name != "exact"}
    named = {OPENCV_NAMES.get(name, name): value for name, value in given.items()}
    solver = cv2.optflow.DualTVL1OpticalFlow.create(**named)
    return solver.calc(previous, following, None).transpose(2, 0, 1)


def ours(previous: np.ndarray, following: np.ndarray, **numbers: Any) -> np.ndarray:
    return tvl1_torch.solve(previous[None], following[None], numbers=numbers)[0]


def scene(shift: tuple[float, float], height: int = 60, width: int = 76) -> list[np.ndarray]:
    """Two frames of a smooth random texture that moves by (u, v) px; a square stays in place."""
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(height + 40, width + 40)).astype(np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), 2.5)
    texture = (texture - texture.min()) / (texture.max() - texture.min()) * 255
    frames = []
    for u, v in ((0.0, 0.0), shift):
        place = np.array([[1, 0, u - 20], [0, 1, v - 20]], np.float32)
        frame = cv2.warpAffine(texture, place, (width, height), flags=cv2.INTER_CUBIC)
        still = frame[20:32, 30:44]
        still[:] = texture[: still.shape[0], : still.shape[1]]
        frames.append(np.rint(frame).clip(0, 255).astype(np.uint8))
    return frames


@needs_oracle
@pytest.mark.parametrize("side", [1, 3, 5])
def test_fixed_iterations_equal_opencv(side: int) -> None:
    numbers = {"epsilon": 0, "num_scales": 1, "num_warps": 1, "inner_iterations": 10}
    numbers |= {"outer_iterations": 1, "median_filtering": side}
    frames = scene((1.5, -1.2))
    np.testing.assert_allclose(ours(*frames, **numbers), opencv(*frames, **numbers), atol=1e-5)


@needs_oracle
def test_fixed_iterations_equal_opencv_over_scales_and_warps() -> None:
    numbers = {"epsilon": 0, "inner_iterations": 6, "outer_iterations": 2}
    frames = scene((3.5, -2.2), 75, 91)
    difference = np.abs(ours(*frames, **numbers) - opencv(*frames, **numbers))
    assert difference.mean() <= 1e-4
    assert difference.max() <= 0.06


@needs_oracle
@pytest.mark.parametrize("preset", ["opencv", "fast"])
def test_presets_agree_with_opencv(preset: str) -> None:
    frames = scene((3.5, -2.2))
    levels = [
        quantize.quantize(flow, 20).astype(int)
        for flow in (ours(*frames, **PRESETS[preset]), opencv(*frames, **PRESETS[preset]))
    ]
    assert (np.abs(levels[0] - levels[1]) <= 1).mean() >= 0.998


@pytest.mark.skipif(
    not (CONTRIB and cv2.__version__ == "5.0.0" and "*AVX2 " in cv2.getCPUFeaturesLine() + " "),
    reason="other versions of OpenCV, and other CPUs, round elsewhere",
)
@pytest.mark.parametrize(
    "numbers",
    [{}, PRESETS["fast"], {"scale_step": 0.7, "lambda_": 0.3, "median_filtering": 3}],
    ids=["opencv", "fast", "other"],
)
def test_gives_the_bits_of_opencv(numbers: dict[str, Any]) -> None:
    frames = scene((3.5, -2.2), 53, 71)
    np.testing.assert_array_equal(ours(*frames, **numbers), opencv(*frames, **numbers))


@needs_oracle
@pytest.mark.slow
def test_real_frames_agree_with_opencv(shared_data: Path) -> None:
    video = sorted((shared_data / "ucf101/videos/Biking").glob("*.avi"))[0]
    reader = cv2.VideoCapture(str(video))
    frames = [cv2.cvtColor(reader.read()[1], cv2.COLOR_BGR2GRAY)[60:180, 80:240] for _ in range(3)]
    flows = ours(*frames[1:]), opencv(*frames[1:])
    levels = [quantize.quantize(flow, 20).astype(int) for flow in flows]
    assert (np.abs(levels[0] - levels[1]) <= 1).mean() >= 0.998


@pytest.mark.parametrize("preset", ["opencv", "fast", "cuda"])
def test_finds_a_translation(preset: str) -> None:
    flow = ours(*scene((2.0, -1.0)), **PRESETS[preset])
    background = flow[:, 8:-8, 52:-8]
    np.testing.assert_allclose(np.median(background, (1, 2)), [2, -1], atol=0.1)


@pytest.mark.parametrize("preset", ["opencv", "cuda"])
def test_equal_frames_give_no_flow(preset: str) -> None:
    frame = scene((0, 0))[0]
    assert not ours(frame, frame, **PRESETS[preset]).any()


def test_a_flipped_pair_gives_the_flipped_flow() -> None:
    frames = scene((2.0, -1.0))
    flow = ours(*frames)
    mirrored = ours(*(np.ascontiguousarray(f[:, ::-1]) for f in frames))[:, :, ::-1]
    difference = np.abs(flow - mirrored * np.array([-1, 1])[:, None, None])
    assert np.median(difference) < 0.02


@pytest.mark.parametrize("preset", ["opencv", "cuda"])
def test_a_batch_gives_the_same_bits_as_one_by_one(preset: str) -> None:
    pairs = [scene((2.0, -1.0), 40, 45), scene((0, 0), 40, 45), scene((0.4, 3.0), 40, 45)]
    previous, following = (np.stack(side) for side in zip(*pairs, strict=True))
    numbers = {**PRESETS[preset], "num_scales": 2, "num_warps": 2}
    batch = tvl1_torch.solve(previous, following, numbers=numbers)
    split = tvl1_torch.solve(previous, following, numbers=numbers, batch_size=2)
    for pair, flow, other in zip(pairs, batch, split, strict=True):
        np.testing.assert_array_equal(ours(*pair, **numbers), flow)
        np.testing.assert_array_equal(other, flow)


def test_inputs_stay_as_they_are() -> None:
    previous, following = (f[None] for f in scene((1.0, 0.5), 30, 34))
    before = previous.copy(), following.copy()
    tvl1_torch.solve(previous, following, numbers={"num_warps": 1})
    np.testing.assert_array_equal(previous, before[0])
    np.testing.assert_array_equal(following, before[1])


def test_float_frames_and_tensors_give_the_same_flow() -> None:
    frames = [f[None] for f in scene((1.0, 0.5), 30, 34)]
    numbers = {"epsilon": 0, "num_warps": 2, "outer_iterations": 1, "inner_iterations": 8}
    flow = tvl1_torch.solve(*frames, numbers=numbers)
    scaled = [f.astype(np.float32) / 255 for f in frames]
    np.testing.assert_allclose(tvl1_torch.solve(*scaled, numbers=numbers), flow, atol=1e-3)
    tensors = [torch.from_numpy(f) for f in frames]
    result = tvl1_torch.solve(*tensors, numbers=numbers)
    assert isinstance(result, torch.Tensor)
    np.testing.assert_array_equal(result.numpy(), flow)


def test_no_frames_give_no_flow() -> None:
    empty = np.empty((0, 30, 40), np.uint8)
    assert tvl1_torch.solve(empty, empty, numbers={}).shape == (0, 2, 30, 40)


@pytest.mark.parametrize(
    "numbers",
    [
        {"lamda": 0.1},
        {"tau": float("nan")},
        {"theta": 0},
        {"num_warps": 0},
        {"inner_iterations": 2.5},
        {"scale_step": 1.0},
        {"median_filtering": 7},
        {"semantics": "opencl"},
    ],
)
def test_impossible_numbers_are_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"expected TV-L1"):
        ours(*scene((0, 0)), **numbers)


@pytest.mark.parametrize(
    "frames",
    [
        (np.zeros((1, 20, 20), np.uint8), np.zeros((1, 20, 21), np.uint8)),
        (np.zeros((1, 20, 20), np.uint8), np.zeros((1, 20, 20), np.float32)),
        (np.zeros((20, 20), np.uint8),) * 2,
        (np.zeros((1, 20, 20), np.int32),) * 2,
        (np.full((1, 20, 20), np.nan, np.float32),) * 2,
        (np.full((1, 20, 20), 200, np.float32),) * 2,
    ],
)
def test_other_frames_are_refused(frames: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(InputError, match="expected"):
        tvl1_torch.solve(*frames, numbers={})
