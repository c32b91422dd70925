"""Masks of what moves before a resting camera."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flowsight.datasets.clips.adapters import weizmann
from flowsight.datasets.clips.moving_regions import moving_regions


def scene(num_frames: int, height: int = 60, width: int = 80) -> np.ndarray:
    texture = np.random.default_rng(3).integers(60, 120, (height, width, 3), np.uint8)
    return np.repeat(texture[None], num_frames, axis=0)


def test_finds_a_square_that_moves_and_nothing_else() -> None:
    frames, truth = scene(12), np.zeros((12, 60, 80), bool)
    for t in range(12):
        truth[t, 20:36, 5 * t : 5 * t + 12] = True
    frames[truth] = 230
    found = moving_regions(frames)
    overlap = (found & truth).sum((1, 2)) / (found | truth).sum((1, 2))
    assert overlap.min() > 0.9  # morphology rounds the corners


def test_what_rests_and_what_is_noise_is_background() -> None:
    frames = scene(9)
    frames[:, 10:30, 10:30] = 240  # stands still
    rng = np.random.default_rng(5)
    noisy = np.clip(frames + rng.normal(0, 4, frames.shape), 0, 255).astype(np.uint8)
    assert not moving_regions(frames).any()
    assert not moving_regions(noisy).any()


@pytest.mark.parametrize(
    ("action", "least", "most"), [("walk", 0.015, 0.08), ("run", 0.015, 0.08), ("wave1", 0, 0.02)]
)
def test_real_clips_give_a_region_as_large_as_a_person(
    shared_data: Path, tmp_path: Path, action: str, least: float, most: float
) -> None:
    """A walker is about 70 px tall in 144; of one who waves only the arm moves."""
    video = shared_data / f"weizmann/videos/{action}/daria_{action}.avi"
    weizmann.write_stand_in(video, tmp_path / "a.npz")
    weizmann.write_stand_in(video, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz") as arrays:
        masks = arrays["masks"]
    assert masks.dtype == bool
    assert least < masks.mean() < most
