"""The colour wheel against torchvision's, and by its landmarks."""

from __future__ import annotations

import numpy as np
import pytest

from flowsight.flow.colors import color_wheel, flow_to_rgb, legend


def test_equals_torchvision() -> None:
    torch = pytest.importorskip("torch")
    from torchvision.utils import flow_to_image

    flow = np.random.default_rng(0).normal(0, 3, (2, 40, 50)).astype(np.float32)
    longest = float(np.hypot(*flow).max()) * (1 + 1e-6)
    flow[:, 0, 0] = longest, 0  # torchvision scales by the longest vector
    expected = flow_to_image(torch.from_numpy(flow)).permute(1, 2, 0).numpy()
    off = np.abs(flow_to_rgb(flow, longest).astype(int) - expected)[1:]
    assert off.max() <= 1  # float32 against float64


def test_landmarks() -> None:
    assert color_wheel().shape == (55, 3)
    assert (color_wheel()[0] == (1, 0, 0)).all()
    still = flow_to_rgb(np.zeros((2, 3, 4)), 5.0)
    assert (still == 255).all()
    right = flow_to_rgb(np.full((2, 1, 1), [[[5.0]], [[0.0]]]), 5.0)[0, 0]
    left = flow_to_rgb(np.full((2, 1, 1), [[[-5.0]], [[0.0]]]), 5.0)[0, 0]
    assert (right[0], right[1]) == (255, 0)
    assert left[0] == 0
    assert left[1:].min() > 128
    beyond = flow_to_rgb(np.full((2, 1, 1), [[[50.0]], [[0.0]]]), 5.0)[0, 0]
    assert beyond.max() == 191  # shown darker


def test_legend_is_a_disc() -> None:
    wheel = legend(65)
    assert wheel.shape == (65, 65, 3)
    assert (wheel[0, 0] == 255).all()
    assert (wheel[32, 32] == 255).all()
    assert (wheel[32, 64] != 255).any()
