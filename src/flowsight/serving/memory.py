"""A video as the packs that the pipeline would store, in memory: decode, scale, flow, JPEG.

The JPEGs stay compressed, as in a pack on disk, so a long or large video does not fill the memory.
"""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flowsight.datasets.clips.flow import MOST_BYTES
from flowsight.flow import api
from flowsight.flow.quantize import quantize
from flowsight.params.config import FlowParams, FramesParams
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

_FEW = 0.7
"""Below this share of needed flow fields the others are left out."""
_AT_ONCE = 8
"""Pairs that wait for a thread together."""

Pair = tuple[int, np.ndarray, np.ndarray]
Fields = Callable[[int, float], Collection[int]]
"""Number of frames, frames per second -> the flow fields that will be read."""
Update = Callable[[int, int], None]
"""Called with the flow fields (or frames) done, and how many there will be (0: unknown)."""


@dataclass(frozen=True)
class Needs:
    """What of a video will be read."""

    flow: bool
    """Or only its frames."""
    fields: Fields | None = None
    """Which flow fields; None: all."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is refused before it costs much."""

    max_bytes: int | None = None
    max_sec: float | None = None
    max_frames: int = MAX_FRAMES
    max_side_px: int = MAX_SIDE_PX


NO_LIMITS = Limits()
EVERYTHING = Needs(flow=True)


class MemoryPack(io.BytesIO):
    """A pack that `video.pack` reads as it reads a file: zipfile takes either."""

    def __str__(self) -> str:
        return "memory"


@dataclass(frozen=True)
class ClipInMemory:
    """What a video became."""

    frames: MemoryPack
    flow: MemoryPack
    """Empty where none is needed."""
    num_frames: int
    timestamps_sec: list[float]
    fps: float
    """By the header."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time spent on `decode`, `jpeg` and, if any, `flow`."""

    @property
    def duration_sec(self) -> float:
        """Time stamp of the last frame and a frame's duration."""
        return self.timestamps_sec[-1] + 1 / self.fps


def load(
    video: Path,
    *,
    frames: FramesParams,
    flow: FlowParams,
    needs: Needs = EVERYTHING,
    limits: Limits = NO_LIMITS,
    update: Update = lambda done, total: None,
) -> ClipInMemory:
    """Make a video's frames and flow packs, as the stages do.

    Args:
        video: any format OpenCV reads.
        frames: size and JPEG quality.
        flow: method, numbers, bound and JPEG quality.
        needs: without flow, none is computed. Where few fields are needed, the video is decoded
            twice and the others are left out: flow costs far more.
        limits: what is refused.
        update: progress.

    Raises:
        UnreadableVideo: see `decode_timed`; fewer than two frames for flow, or a limit is passed.
    """
    header = _checked_header(video, frames, limits)
    work = _Work(video, frames, flow, limits, header, update)
    if not needs.flow:
        work.keep_frames()
        return work.clip()
    start = time.perf_counter()
    # the header only decides which way is quicker: what is needed follows from what decodes
    if needs.fields is not None and _are_few(needs.fields, header):
        for _ in work.grey_frames():
            pass
        work.solve_some(needs.fields(len(work.timestamps_sec), header.fps))
    else:
        work.solve_all()
    work.seconds["flow"] = time.perf_counter() - start - sum(work.seconds.values())
    return work.clip()


@dataclass(frozen=True)
class _Header:
    fps: float
    promised: int
    """Frames, 0 if it does not say."""
    threads: int
    """Pairs of frames solved at once."""


def _are_few(fields: Fields, header: _Header) -> bool:
    count = header.promised
    return count > 1 and len(fields(count, header.fps)) < _FEW * (count - 1)


class _Work:
    """One video on its way into packs."""

    def __init__(
        self,
        video: Path,
        frames: FramesParams,
        flow: FlowParams,
        limits: Limits,
        header: _Header,
        update: Update,
    ) -> None:
        self.video, self.frames, self.flow = video, frames, flow
        self.limits, self.header, self.update = limits, header, update
        self.seconds = {"decode": 0.0, "jpeg": 0.0}
        self.timestamps_sec: list[float] = []
        self._size = [0, 0]
        self._frames, self._flow = _Writer(), _Writer()

    def keep_frames(self) -> None:
        """Decode and store, no more."""
        for done, _ in enumerate(self._stored(), start=1):
            self.update(done, self.header.promised)

    def grey_frames(self) -> Iterator[np.ndarray]:
        """Decode; store each frame; yield it in grey."""
        for frame in self._stored():
            yield cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        if len(self.timestamps_sec) < 2:
            raise UnreadableVideo("fewer than 2 frames", self.video)

    def _stored(self) -> Iterator[np.ndarray]:
        for time_sec, frame in self._decoded():
            if self.limits.max_sec is not None and time_sec > self.limits.max_sec:
                raise UnreadableVideo(f"more than {self.limits.max_sec:g} s of video", self.video)
            with self._timed("jpeg"):
                name = pack.frame_name(len(self.timestamps_sec))
                self._frames.add(name, pack.encode_jpeg(frame, self.frames.quality))
            self.timestamps_sec.append(time_sec)
            self._size = [frame.shape[1], frame.shape[0]]
            yield frame

    def solve_all(self) -> None:
        """Every field, while the frames are decoded."""
        fields = api.compute_levels(
            self.grey_frames(),
            method=self.flow.method,
            preset=self.flow.preset,
            backend=self.flow.backend,
            bound_px=self.flow.bound_px,
            threads=self.header.threads,
        )
        for index, levels in enumerate(fields):
            self._store(index, levels)
            self.update(index + 1, max(0, self.header.promised - 1))

    def solve_some(self, wanted: Collection[int]) -> None:
        """These fields, with the frames decoded once more."""
        done = 0
        for pairs in _batched(self._pairs(frozenset(wanted)), _AT_ONCE * self.header.threads):
            fields = api.compute(
                np.stack([previous for _, previous, _ in pairs]),
                np.stack([following for _, _, following in pairs]),
                method=self.flow.method,
                preset=self.flow.preset,
                backend=self.flow.backend,
            )
            for (index, _, _), solved in zip(pairs, fields, strict=True):
                self._store(index, quantize(solved, self.flow.bound_px))
            done += len(pairs)
            self.update(done, len(wanted))

    def _pairs(self, wanted: frozenset[int]) -> Iterator[Pair]:
        previous = None
        for index, (_, frame) in enumerate(self._decoded()):
            if index not in wanted and index - 1 not in wanted:
                continue
            grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            if index - 1 in wanted:
                assert previous is not None
                yield index - 1, previous, grey
            previous = grey

    def clip(self) -> ClipInMemory:
        """What was stored."""
        count = len(self.timestamps_sec)
        meta = {"size": self._size, "num_frames": count, "num_fields": count - 1}
        return ClipInMemory(
            frames=self._frames.finish(meta),
            flow=self._flow.finish(meta),
            num_frames=count,
            timestamps_sec=self.timestamps_sec,
            fps=self.header.fps,
            seconds=self.seconds,
        )

    def _store(self, index: int, levels: np.ndarray) -> None:
        with self._timed("jpeg"):
            for name, component in zip(pack.flow_names(index), levels, strict=True):
                self._flow.add(name, pack.encode_jpeg(component, self.flow.quality))

    def _decoded(self) -> Iterator[tuple[float, np.ndarray]]:
        frames = decode_timed(
            self.video,
            self.frames.size,
            max_frames=self.limits.max_frames,
            max_side_px=self.limits.max_side_px,
        )
        while True:
            with self._timed("decode"):
                item = next(frames, None)
            if item is None:
                return
            yield item

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start


def _checked_header(video: Path, frames: FramesParams, limits: Limits) -> _Header:
    """Refuse what the header gives away."""
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
    at_once = max(1, MOST_BYTES // (_BYTES_PER_PX * pixels))
    return _Header(fps, promised, min(num_workers(), at_once))


def maps_pack(maps: np.ndarray) -> MemoryPack:
    """Attention maps (T, h, w) uint8 as a pack."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(maps), allow_pickle=False)
    writer = _Writer()
    writer.add(pack.MAPS, buffer.getvalue())
    return writer.finish({"num_maps": len(maps)})


def _batched(items: Iterable[Pair], size: int) -> Iterator[list[Pair]]:
    """The items in lists of at most `size`."""
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch


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
