"""Training sequences of static-camera videos: crops, times and light, drawn from a seed; no torch.

Axes: B sequences, C channels of the network's input, K of a picture (1 or 3), T frames, H rows, W
columns (after the pixel stride).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowsight.datasets.scenes import videos as background
from flowsight.datasets.scenes.videos import Video
from flowsight.errors import InputError
from flowsight.metrics.change_detection import MOVING, OUTSIDE, UNKNOWN, Grey
from flowsight.systems.background.params import SceneInputParams, SceneTrainParams

Floats = npt.NDArray[np.float32]
_RANGE = 4.0
"""Of the grey levels that the network sees: from -2 to 2."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingVideo:
    """The part of a video that trains, in memory."""

    video_id: str
    frames: Grey
    """(T, H, W, K), from the first frame to the last of the truth's first half."""
    truths: Grey
    """(T, H, W); 85 before the truth begins."""
    place: Grey
    """(H, W, K), the median of the first frames; zeros where none is wanted."""
    moving: npt.NDArray[np.int64]
    """(N, 3) frame, row and column of moving pixels, a few of each frame."""


def load(video: Video, params: SceneInputParams) -> TrainingVideo:
    """Read the part that trains.

    Raises:
        InputError: as `datasets.scenes.videos`; also where nothing is scored or nothing moves.
    """
    half, _ = video.halves()
    frames = np.stack(
        [background.read_frame(video, i, colour=params.colour) for i in range(half.stop)]
    )
    truths = np.full(frames.shape[:3], OUTSIDE, np.uint8)
    truths[half.start :] = background.read_truths(video, half)
    moving = [
        np.stack([np.full(len(found), index), *found.T], axis=1)
        for index in half
        if len(found := np.argwhere(truths[index] == MOVING))
    ]
    few = [found[:: max(1, len(found) // 16)] for found in moving]
    first = frames[: params.background_frames]
    return TrainingVideo(
        video_id=video.video_id,
        frames=frames,
        truths=truths,
        place=background.median_background(first) if len(first) else np.zeros_like(frames[0]),
        moving=np.concatenate(few),
    )


def check_length(video: TrainingVideo, train: SceneTrainParams) -> None:
    """Refuse sequences longer than what trains of a video.

    Raises:
        InputError: they are.
    """
    if train.sequence_frames > len(video.frames):
        raise InputError(
            f"expected training sequences of at most {len(video.frames)} frames, as "
            f"{video.video_id} has, got {train.sequence_frames}; lower train.warmup_frames, "
            "chunk_frames or chunks"
        )


def draw(
    videos: Sequence[TrainingVideo],
    params: SceneInputParams,
    train: SceneTrainParams,
    rng: np.random.Generator,
) -> tuple[Floats, Grey]:
    """A batch of sequences.

    Args:
        videos: each is drawn with the same probability.
        params, train: sizes and chances.
        rng: everything follows from it.

    Returns:
        Inputs (B, C, T, H, W) float32 (see `network_input`) and truths (B, T, H, W) uint8.
    """
    sizes = [_strided(video, params.pixel_stride) for video in videos]
    height = min(params.crop[0], *(size[0] for size in sizes))
    width = min(params.crop[1], *(size[1] for size in sizes))
    shape = (train.batch_size, train.sequence_frames, height, width)
    truths = np.empty(shape, np.uint8)
    # written in place: to stack such large arrays afterwards costs more than to compute them
    inputs = np.empty((shape[0], params.channels, *shape[1:]), np.float32)
    for place, index in enumerate(rng.integers(len(videos), size=train.batch_size)):
        truths[place] = _sequence(
            videos[index], params, train, (height, width), rng, out=inputs[place]
        )
    return inputs, truths


def _strided(video: TrainingVideo, stride: int) -> tuple[int, int]:
    """Height and width that every offset of the stride leaves."""
    _, height, width = video.truths.shape
    return height // stride, width // stride


def _sequence(
    video: TrainingVideo,
    params: SceneInputParams,
    train: SceneTrainParams,
    crop: tuple[int, int],
    rng: np.random.Generator,
    out: Floats,
) -> Grey:
    """Inputs into `out` (C, T, H, W); the truth."""
    times, rows, columns = _window(video, params.pixel_stride, train, crop, rng)
    # strided views made whole once: every step below goes over all of them
    frames, truths = (
        np.ascontiguousarray(part[times, rows, columns]) for part in (video.frames, video.truths)
    )
    place = video.place[rows, columns]
    if params.flip and rng.random() < 0.5:
        frames, truths, place = frames[:, :, ::-1], truths[:, :, ::-1], place[:, ::-1]
    if params.recolour and rng.random() < 0.5:
        frames = _recolour(frames, truths, rng)
    lit, place_lit = _relight(frames, place, params.light, rng)
    network_input(lit, place_lit if params.background_frames else None, out)
    return truths


def _window(
    video: TrainingVideo,
    stride: int,
    train: SceneTrainParams,
    crop: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[slice, slice, slice]:
    """Frames, rows and columns of a sequence: anywhere, or where something moves."""
    length, sizes = train.sequence_frames, video.truths.shape[1:]
    latest = len(video.frames) - length
    first_scored = int(np.argmax((video.truths != OUTSIDE).any(axis=(1, 2))))
    earliest = min(max(first_scored - train.warmup_frames, 0), latest)
    last = [size - stride * (extent - 1) - 1 for size, extent in zip(sizes, crop, strict=True)]
    start = int(rng.integers(earliest, latest + 1))
    corner = [int(rng.integers(end + 1)) for end in last]
    if rng.random() < train.moving_share:
        # the moving pixel is somewhere in the crop, in one of the frames that have a loss
        frame, *at = (int(v) for v in video.moving[rng.integers(len(video.moving))])
        start = frame - int(rng.integers(train.warmup_frames, length))
        start = int(np.clip(start, earliest, latest))
        inside = [stride * int(rng.integers(extent)) for extent in crop]
        corner = [min(max(a - i, 0), end) for a, i, end in zip(at, inside, last, strict=True)]
    rows, columns = (
        slice(at, at + stride * (extent - 1) + 1, stride)
        for at, extent in zip(corner, crop, strict=True)
    )
    return slice(start, start + length), rows, columns


def _recolour(frames: Grey, truths: Grey, rng: np.random.Generator) -> Grey:
    """What moves, with its blurred border, in another colour; the place and shadows stay."""
    solid = (truths == MOVING) | (truths == UNKNOWN)
    contrast, level = rng.uniform(-1, 1, frames.shape[-1]), rng.uniform(0, 255, frames.shape[-1])
    other = np.array(frames)
    other[solid] = np.clip((frames[solid] - np.float32(127.5)) * contrast + level, 0, 255)
    return other


def _relight(
    frames: Grey, place: Grey, light: float, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Grey levels as under another light: of all, of the place by itself, and slowly changing."""
    all_, own, swing, phase = rng.uniform(-1, 1, 4)
    period = rng.uniform(40, 400)
    if light == 0:
        return frames.astype(np.float32), place.astype(np.float32)
    times = np.arange(len(frames), dtype=np.float32)
    slow = 1 + light / 2 * swing * np.sin(2 * np.pi * times / period + np.pi * phase)
    gain = ((1 + light * all_) * slow).astype(np.float32)
    lit = frames * gain[:, None, None, None]
    return lit.clip(0, 255, out=lit), np.clip(
        place * np.float32((1 + light * all_) * (1 + light / 2 * own)), 0, 255
    )


def network_input(
    frames: npt.NDArray, place: npt.NDArray | None, out: Floats | None = None
) -> Floats:
    """What the network sees of frames.

    Args:
        frames: (T, H, W, K), 0 to 255.
        place: (H, W, K), the median background; None: the frames only.
        out: where to write; None: a new array.

    Returns:
        (C, T, H, W) float32, C = K or 2K: levels from -2 to 2 and, with a place, the differences
        from it, from -4 to 4.
    """
    channels = frames.shape[3]
    if out is None:
        parts = 1 if place is None else 2
        out = np.empty((parts * channels, *frames.shape[:3]), np.float32)
    for channel in range(channels):
        levels = frames[..., channel]
        np.subtract(levels, np.float32(127.5), out=out[channel])
        if place is not None:
            here = place[..., channel].astype(np.float32)
            np.subtract(levels, here, out=out[channels + channel])
    out *= np.float32(_RANGE / 255)
    return out
