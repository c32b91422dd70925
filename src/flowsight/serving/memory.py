"""A video as the packs that the pipeline would store, in memory: decode, scale, flow, JPEG.

The JPEGs stay compressed, as in a pack on disk, so a long or large video does not fill the memory.
"""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flowsight.config import FlowParams, FramesParams
from flowsight.flow import api
from flowsight.flow_packing import MOST_BYTES
from flowsight.video import pack
from flowsight.video.decode import (
    MAX_FRAMES,
    MAX_SIDE_PX,
    UnreadableVideo,
    decode_timed,
    frame_rate,
    opened,
    promised_frames,
)
from flowsight.video.workers import num_workers

_BYTES_PER_PX = 128
"""Working memory of a pair of frames in the flow engine, as `flow_packing` reckons."""

Update = Callable[[int, int], None]
"""Called with the frames done, and how many the header promises (0: it does not say)."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is refused before it costs much."""

    max_bytes: int | None = None
    max_sec: float | None = None
    max_frames: int = MAX_FRAMES
    max_side_px: int = MAX_SIDE_PX


NO_LIMITS = Limits()


class MemoryPack(io.BytesIO):
    """A pack that `video.pack` reads as it reads a file: zipfile takes either."""

    def __str__(self) -> str:
        return "memory"


@dataclass(frozen=True)
class ClipInMemory:
    """What a video became."""

    frames: MemoryPack
    flow: MemoryPack
    num_frames: int
    timestamps_sec: list[float]
    fps: float
    """By the header."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time spent on `decode`, `jpeg` and `flow`."""

    @property
    def duration_sec(self) -> float:
        """Time stamp of the last frame and a frame's duration."""
        return self.timestamps_sec[-1] + 1 / self.fps


def load(
    video: Path,
    *,
    frames: FramesParams,
    flow: FlowParams,
    limits: Limits = NO_LIMITS,
    update: Update = lambda done, total: None,
) -> ClipInMemory:
    """Decode a video once and make its frames and flow packs, as the stages do.

    Args:
        video: any format OpenCV reads.
        frames: size and JPEG quality.
        flow: method, numbers, bound and JPEG quality.
        limits: what is refused.
        update: progress.

    Raises:
        UnreadableVideo: see `decode_timed`; fewer than two frames, or a limit is passed.
    """
    fps, promised, threads = _check_header(video, frames, limits)
    clock = _Clock()
    timestamps_sec: list[float] = []
    stored = _Writer(), _Writer()
    shape: tuple[int, ...] = ()

    def grey_frames() -> Iterator[np.ndarray]:
        nonlocal shape
        for time_sec, frame in clock.each("decode", _decoded(video, frames, limits)):
            if limits.max_sec is not None and time_sec > limits.max_sec:
                raise UnreadableVideo(f"more than {limits.max_sec:g} s of video", video)
            with clock.part("jpeg"):
                jpeg = pack.encode_jpeg(frame, frames.quality)
                stored[0].add(pack.frame_name(len(timestamps_sec)), jpeg)
            timestamps_sec.append(time_sec)
            shape = frame.shape
            yield cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            update(len(timestamps_sec), promised)
        if len(timestamps_sec) < 2:
            raise UnreadableVideo("fewer than 2 frames", video)

    start = time.perf_counter()
    fields = api.compute_levels(
        grey_frames(),
        method=flow.method,
        preset=flow.preset,
        backend=flow.backend,
        bound_px=flow.bound_px,
        threads=threads,
    )
    for index, levels in enumerate(fields):
        with clock.part("jpeg"):
            for name, component in zip(pack.flow_names(index), levels, strict=True):
                stored[1].add(name, pack.encode_jpeg(component, flow.quality))
    clock.seconds["flow"] = time.perf_counter() - start - sum(clock.seconds.values())
    count, size = len(timestamps_sec), [shape[1], shape[0]]
    meta = {"size": size, "num_frames": count, "num_fields": count - 1}
    return ClipInMemory(
        frames=stored[0].finish(meta),
        flow=stored[1].finish(meta),
        num_frames=count,
        timestamps_sec=timestamps_sec,
        fps=fps,
        seconds=clock.seconds,
    )


def _decoded(
    video: Path, frames: FramesParams, limits: Limits
) -> Iterator[tuple[float, np.ndarray]]:
    return decode_timed(
        video, frames.size, max_frames=limits.max_frames, max_side_px=limits.max_side_px
    )


def _check_header(video: Path, frames: FramesParams, limits: Limits) -> tuple[float, int, int]:
    """Refuse what the header gives away; frame rate, promised frames, pairs solved at once."""
    if limits.max_bytes is not None and video.is_file():
        size = video.stat().st_size
        if size > limits.max_bytes:
            most = f"{limits.max_bytes / 1e6:g} MB"
            raise UnreadableVideo(f"{size / 1e6:.1f} MB where at most {most} are allowed", video)
    with opened(video, max_side_px=limits.max_side_px) as capture:
        fps, promised = frame_rate(capture), promised_frames(capture)
        width = capture.get(cv2.CAP_PROP_FRAME_WIDTH)
        height = capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    # a header may lie, but not in favour of more work than is allowed
    if limits.max_sec is not None and promised / fps > limits.max_sec:
        length = f"{promised / fps:.1f} s where at most {limits.max_sec:g} s are allowed"
        raise UnreadableVideo(f"a video of {length}", video)
    pixels = int(width * height) if frames.size is None else frames.size[0] * frames.size[1]
    return fps, promised, min(num_workers(), max(1, MOST_BYTES // (_BYTES_PER_PX * pixels)))


def maps_pack(maps: np.ndarray) -> MemoryPack:
    """Attention maps (T, h, w) uint8 as a pack."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(maps), allow_pickle=False)
    writer = _Writer()
    writer.add(pack.MAPS, buffer.getvalue())
    return writer.finish({"num_maps": len(maps)})


class _Writer:
    def __init__(self) -> None:
        self._pack = MemoryPack()
        self._archive = zipfile.ZipFile(self._pack, "w")

    def add(self, name: str, content: bytes) -> None:
        self._archive.writestr(name, content)

    def finish(self, meta: dict[str, Any]) -> MemoryPack:
        self.add(pack.META, json.dumps(meta).encode())
        self._archive.close()
        return self._pack


class _Clock:
    """Time spent on parts of the work."""

    def __init__(self) -> None:
        self.seconds = {"decode": 0.0, "jpeg": 0.0}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start

    def each(self, name: str, items: Iterator[Any]) -> Iterator[Any]:
        while True:
            with self.part(name):
                item = next(items, None)
            if item is None:
                return
            yield item
