"""Training sequences: what is drawn, and that it is where it says it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flowsight.datasets.scenes import videos
from flowsight.errors import InputError
from flowsight.samples import scenes
from flowsight.systems.background import sequences
from flowsight.systems.background.params import SceneInputParams, SceneTrainParams
from flowsight.systems.background.sequences import TrainingVideo, draw, network_input

INPUT = SceneInputParams(
    background_frames=0,
    pixel_stride=2,
    crop=(4, 5),
    colour=False,
    flip=False,
    recolour=False,
    light=0.0,
)
TRAIN = SceneTrainParams(
    epochs=1, batches=1, batch_size=40, warmup_frames=2, chunk_frames=2, chunks=2,
    moving_share=0.0, lr=0.01, schedule="constant",
)  # fmt: skip


@pytest.fixture(scope="module")
def video() -> TrainingVideo:
    """20 frames of 12 x 16 px; every grey level tells where and when; one pixel moves at a time."""
    frames, rows, columns = np.ogrid[:20, :12, :16]
    truths = np.where(frames < 8, 85, 0) * np.ones((1, 12, 16), int)
    moving = np.array([[frame, frame % 12, 15 - frame % 16] for frame in range(8, 20)])
    truths[tuple(moving.T)] = 255
    return TrainingVideo(
        video_id="a/b",
        frames=(12 * frames + rows + 0 * columns).astype(np.uint8)[..., None],
        truths=truths.astype(np.uint8),
        place=(16 * np.arange(12)[:, None] % 256 + np.arange(16)).astype(np.uint8)[..., None],
        moving=moving,
    )


def grey(inputs: np.ndarray) -> np.ndarray:
    return np.rint(inputs[:, 0] * 255 / 4 + 127.5).astype(int)


def test_crops_are_strided_windows_of_the_video(video: TrainingVideo) -> None:
    inputs, truths = draw([video], INPUT, TRAIN, np.random.default_rng(0))
    assert (inputs.shape, inputs.dtype) == ((40, 1, 6, 4, 5), np.float32)
    assert (truths.shape, truths.dtype) == ((40, 6, 4, 5), np.uint8)
    levels = grey(inputs)
    times, rows = levels[:, :, 0, 0] // 12, levels[:, 0, :, 0] % 12
    assert (np.diff(times) == 1).all() and (np.diff(rows) == 2).all()
    starts = times[:, 0]
    # never all before the truth; up to the last frame
    assert starts.min() == 6 and starts.max() == 14
    assert set(rows[:, 0]) == set(range(12 - 6))  # both phases of the stride
    for start, row, truth in zip(starts, rows[:, 0], truths, strict=True):
        rows_of = video.truths[start : start + 6, row : row + 7 : 2]
        assert any((rows_of[:, :, c : c + 9 : 2] == truth).all() for c in range(8))


def test_sequences_where_something_moves(video: TrainingVideo) -> None:
    rng = np.random.default_rng(0)
    _, truths = draw([video], INPUT, replace(TRAIN, moving_share=1.0), rng)
    assert (truths[:, 2:] == 255).any(
        axis=(1, 2, 3)
    ).mean() > 0.7  # borders, and pixels of the other phase, cut some
    _, anywhere = draw([video], INPUT, TRAIN, rng)
    assert (anywhere[:, 2:] == 255).any(axis=(1, 2, 3)).mean() < 0.5


def test_the_seed_decides(video: TrainingVideo) -> None:
    first, again, other = (
        draw([video], INPUT, TRAIN, np.random.default_rng(seed))[0] for seed in (1, 1, 2)
    )
    assert (first == again).all() and not (first == other).all()


def test_small_videos_cut_the_crop(video: TrainingVideo) -> None:
    inputs, _ = draw([video], replace(INPUT, crop=(50, 50)), TRAIN, np.random.default_rng(0))
    assert inputs.shape[3:] == (6, 8)


def test_mirrored_sequences(video: TrainingVideo) -> None:
    """The place grows from left to right; its difference channel tells which way a crop lies."""
    params = replace(INPUT, flip=True, background_frames=1)
    inputs, _ = draw([video], params, TRAIN, np.random.default_rng(0))
    slope = np.sign(inputs[:, 1, 0, 0, 1] - inputs[:, 1, 0, 0, 0])
    assert set(slope) == {-1.0, 1.0}


def test_light_changes_all_and_the_place_apart(video: TrainingVideo) -> None:
    params = replace(INPUT, light=0.3, background_frames=1)
    plain, _ = draw([video], replace(params, light=0.0), TRAIN, np.random.default_rng(0))
    lit, _ = draw([video], params, TRAIN, np.random.default_rng(0))
    gains = (lit[:, 0] * 255 / 4 + 127.5) / np.maximum(plain[:, 0] * 255 / 4 + 127.5, 1)
    whole = gains.mean(axis=(1, 2, 3))
    assert 0.6 < whole.min() < 0.9 and 1.05 < whole.max() < 1.5
    assert np.ptp(gains, axis=1).max() > 0.01  # within a sequence
    place = (plain[:, 0] - plain[:, 1], lit[:, 0] - lit[:, 1])
    assert not np.allclose(place[1] / place[0], gains[:, :1].mean(), rtol=0.02)


def test_inputs_of_the_network() -> None:
    frames = np.array([[[0, 255]], [[51, 102]]], np.uint8)[..., None]
    alone = network_input(frames, None)
    np.testing.assert_allclose(alone[0], [[[-2, 2]], [[-1.2, -0.4]]], atol=1e-6)
    both = network_input(frames, np.array([[[51], [0]]], np.uint8))
    assert both.dtype == np.float32
    np.testing.assert_allclose(both[1], [[[-0.8, 4]], [[0, 1.6]]], atol=1e-6)


def test_the_first_half_is_loaded(tmp_path: Path) -> None:
    scenes.render(tmp_path, seed=1, num_frames=24, shape=(48, 64))
    source = videos.open_video(tmp_path, "baseline/street")
    half, _ = source.halves()
    colour = sequences.load(source, replace(INPUT, colour=True, background_frames=4))
    assert (colour.frames.shape, colour.place.shape) == ((15, 48, 64, 3), (48, 64, 3))
    assert half == range(6, 15)
    found = sequences.load(source, replace(INPUT, background_frames=4))
    assert found.frames.shape == (15, 48, 64, 1) and found.truths.shape == (15, 48, 64)
    assert (found.truths[:6] == 85).all()
    assert (found.truths[14] == videos.read_truth(source, 14)).all()
    assert (found.place == videos.median_background(list(found.frames[:4]))).all()
    assert set(found.moving[:, 0]) <= set(half)
    assert (found.truths[tuple(found.moving.T)] == 255).all()
    with pytest.raises(InputError, match="of at most 15 frames, as baseline/street has, got 16"):
        sequences.check_length(found, replace(TRAIN, warmup_frames=12))
