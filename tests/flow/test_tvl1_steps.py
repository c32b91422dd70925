"""The parts of TV-L1 in torch against OpenCV's, and against what they are defined by."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from flowsight.flow import tvl1_images, tvl1_steps
from flowsight.flow.tvl1_numbers import level_sizes, read_numbers

# 4.x rounds the warp's positions to 1/32 px
OPENCV_5 = int(cv2.__version__.split(".")[0]) >= 5


def random_flow(height: int, width: int, spread_px: float = 4) -> torch.Tensor:
    values = np.random.default_rng(5).normal(0, spread_px, (1, 2, height, width))
    return torch.from_numpy(values.astype(np.float32))


def random_frame(height: int, width: int) -> np.ndarray:
    values = np.random.default_rng(6).integers(0, 256, (height, width))
    return cv2.GaussianBlur(values.astype(np.float32), (0, 0), 1)


@pytest.mark.parametrize("step", [0.8, 0.5, 0.7])
def test_pyramid_equals_opencv(step: float) -> None:
    frame = random_frame(75, 91)
    levels = tvl1_images.pyramid(torch.from_numpy(frame)[None], read_numbers({"scale_step": step}))
    assert len(levels) > 2
    for level in levels[1:]:
        frame = cv2.resize(frame, None, fx=step, fy=step, interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(level[0].numpy(), frame, atol=1e-3)


def test_upsampled_flow_equals_opencv() -> None:
    flow = random_flow(48, 61)
    finer = tvl1_images.upsample_flow(flow, (60, 76), read_numbers({}))
    for ours, coarse in zip(finer[0].numpy(), flow[0].numpy(), strict=True):
        expected = cv2.resize(coarse, (76, 60), interpolation=cv2.INTER_LINEAR) * 1.25
        np.testing.assert_allclose(ours, expected, atol=1e-4)


@pytest.mark.skipif(not OPENCV_5, reason="OpenCV 4 rounds positions to 1/32 px")
def test_warp_equals_opencv_also_outside() -> None:
    frame = random_frame(60, 76)
    flow = random_flow(*frame.shape, spread_px=12)
    flow[0, 0, 0, :4] = torch.tensor([1e7, -1e7, 80.0, -77.5])
    warped = tvl1_images.warp(torch.from_numpy(frame)[None, None], flow, read_numbers({}))
    x = np.arange(frame.shape[1], dtype=np.float32) + flow[0, 0].numpy()
    y = np.arange(frame.shape[0], dtype=np.float32)[:, None] + flow[0, 1].numpy()
    expected = cv2.remap(frame, x, y, cv2.INTER_CUBIC)
    np.testing.assert_allclose(warped[0, 0].numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("side", [3, 5])
@pytest.mark.parametrize("shape", [(5, 5), (31, 44)])
def test_median_equals_opencv(side: int, shape: tuple[int, int]) -> None:
    image = random_flow(*shape)
    filtered = tvl1_images.median_filter(image, side)
    for ours, plane in zip(filtered[0].numpy(), image[0].numpy(), strict=True):
        np.testing.assert_array_equal(ours, cv2.medianBlur(plane, side))


def test_divergence_is_minus_the_adjoint_of_the_forward_difference() -> None:
    flow = random_flow(9, 13).double()
    dual = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 2, 2, 9, 13)))
    dual[:, :, 0, :, -1] = 0
    dual[:, :, 1, -1] = 0
    left = (tvl1_steps.forward_difference(flow) * dual).sum()
    right = -(flow * tvl1_steps.divergence(dual)).sum()
    torch.testing.assert_close(left, right)


def test_threshold_minimises_its_energy() -> None:
    rng = np.random.default_rng(2)
    lambda_, theta, num = 0.15, 0.3, 400
    gradient = torch.from_numpy(rng.normal(0, 5, (1, 2, 1, num)))
    constant = torch.from_numpy(rng.normal(0, 8, (1, 1, num)))
    flow = torch.from_numpy(rng.normal(0, 1, (1, 2, 1, num)))
    plane = tvl1_steps.Linearised(gradient, gradient.square().sum(1), constant)

    def energy(v: torch.Tensor) -> torch.Tensor:
        rho = constant + (gradient * v).sum(1)
        return lambda_ * rho.abs() + (v - flow).square().sum(1) / (2 * theta)

    best = flow + tvl1_steps.threshold(flow, plane, lambda_ * theta)
    for _ in range(20):
        other = best + torch.from_numpy(rng.normal(0, 0.02, best.shape))
        assert (energy(best) <= energy(other) + 1e-12).all()


def test_dual_stays_within_the_unit_circle() -> None:
    dual = torch.zeros(1, 2, 2, 12, 15)
    for _ in range(50):
        dual = tvl1_steps.dual_update(dual, random_flow(12, 15), 0.25 / 0.3)
    assert dual.square().sum(2).max() <= 1 + 1e-6


def test_both_frame_sums_add_everything() -> None:
    values = torch.arange(1, 78, dtype=torch.float32).view(1, 7, 11).repeat(2, 1, 1)
    assert tvl1_steps.frame_sum(values).tolist() == [3003, 3003]
    assert tvl1_steps.sum_by_halving(values.flatten(1)).tolist() == [3003, 3003]


def test_level_sizes_round_halves_to_even_and_stop_at_16_px() -> None:
    assert level_sizes(240, 320, read_numbers({}))[:4] == [
        (240, 320), (192, 256), (154, 205), (123, 164)
    ]  # fmt: skip
    assert level_sizes(85, 35, read_numbers({"scale_step": 0.5})) == [(85, 35), (42, 18)]


def test_cuda_stop_tests_odd_iterations_once_the_credit_is_used_up() -> None:
    errors = [9.0, 4.0, 9.0, 9.0, 9.0, 2.5, 9.0, 0.5]
    credit, seen = torch.zeros(1, dtype=torch.float64), []
    for iteration, error in enumerate(errors):
        stopped, credit = tvl1_steps.stop(torch.tensor([error]), credit, iteration, 1.0, "cuda")
        seen.append((bool(stopped), float(credit)))
    # tested in 1 (credit 4), then not before three more have used it up: in 5, and in 7
    credits = [-1.0, 4.0, 3.0, 2.0, 1.0, 0.0, -1.0, 0.5]
    assert [value for _, value in seen] == credits
    assert [done for done, _ in seen] == [False] * 7 + [True]


def test_cuda_warp_repeats_the_edge_and_is_exact_for_parabolas() -> None:
    x = torch.arange(20.0)
    image = (x * x).repeat(1, 1, 12, 1)
    flow = torch.full((1, 2, 12, 20), 0.3)
    inside = tvl1_images.warp(image, flow, read_numbers({"semantics": "cuda"}))[0, 0, :, 2:-3]
    torch.testing.assert_close(inside, ((x + 0.3) ** 2)[2:-3].expand(12, -1))
    far = torch.full((1, 2, 12, 20), 40.0)
    edge = tvl1_images.warp(image, far, read_numbers({"semantics": "cuda"}))
    torch.testing.assert_close(edge, torch.full_like(edge, 361.0))
    assert not tvl1_images.warp(image, far, read_numbers({})).any()
