"""The work of the stage `flow`: optical flow of a shard's videos into packs.

As `packing`: each video is decoded once, a clip that fails is quarantined with its reason, and
bytes do not depend on the number of workers. Flow is never computed from stored JPEGs. A clip's
frames are read only as fast as they are solved and stored, so memory does not grow with its length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flowsight import progress
from flowsight.datasets.clips.frames import Size, check_storage, source_meta
from flowsight.errors import InputError
from flowsight.flow import api
from flowsight.flow.quantize import check_bound
from flowsight.video import pack
from flowsight.video.decode import UnreadableVideo, decode_timed, opened, promised_frames
from flowsight.video.shard import ShardClip, naming_full_disk, work_through
from flowsight.video.workers import counted, num_workers

MOST_BYTES = 2**30
"""Working memory of the pairs of frames that are solved at once for one clip."""
_BYTES_PER_PX = 128
"""Working memory of one pair, generously: 21 floats a pixel and pyramids (`_tvl1.c`)."""


@dataclass(frozen=True, kw_only=True)
class FlowSettings:
    """How flow is computed and stored."""

    method: str = "tvl1"
    """`tvl1`, `dis` or `farneback`."""
    preset: str = "opencv"
    """TV-L1's, see `flow.tvl1`."""
    backend: str = "auto"
    """TV-L1's, see `flow.tvl1`."""
    bound_px: float = 20.0
    """Displacements are clipped to +- this and quantised to uint8."""
    quality: int = 95
    """JPEG quality, 1..100."""
    size: Size = None
    """Width and height in px that flow is computed at; None keeps each video's."""

    def check(self) -> None:
        """Raise InputError unless these settings can run here."""
        check_storage(size=self.size, quality=self.quality)
        check_bound(self.bound_px)
        api.check_settings(method=self.method, preset=self.preset, backend=self.backend)


def pack_flow(shard_dir: Path, out: Path, *, keep: Path | None = None, **settings: Any) -> None:
    """Store the optical flow of a shard's clips: the stage `flow`.

    Args:
        shard_dir: as for `pack_frames`.
        out: folder for `<clip_id>.zip` and `status.csv`.
        keep: where finished clips wait, so that a killed run goes on (see `work_through`).
        settings: those of `FlowSettings`; the backend must be named, since `auto` could give
            other bytes on another machine.

    Raises:
        InputError, ResourceError: as `pack_frames`.
    """
    chosen = FlowSettings(**settings)
    if chosen.backend == "auto":
        raise InputError(
            "expected a named flow.backend in a stage, got 'auto'; use cpu, torch or opencv"
        )
    chosen.check()
    work_through(Path(shard_dir), Path(out), partial(_pack_clip, chosen), "flow", keep=keep)


def _pack_clip(settings: FlowSettings, clip: ShardClip, target: Path, threads: int) -> None:
    _write_flow(clip.video, target, clip.clip_id, settings, threads)


def flow_of_video(video: Path, out: Path, **settings: Any) -> None:
    """Optical flow of one video as a pack, with progress: a user's own file.

    Args:
        video: any format OpenCV reads; its stem becomes the clip_id.
        out: the zip to write; replaced only when all went well.
        settings: those of `FlowSettings`.

    Raises:
        InputError: wrong settings; UnreadableVideo for the video.
        ResourceError: no space left.
    """
    chosen = FlowSettings(**settings)
    chosen.check()
    video = Path(video)
    with opened(video) as capture:
        promised = promised_frames(capture)  # good enough for the time left
    title = f"flow of {video.name}"
    with (
        naming_full_disk(Path(out)),
        progress.meter(title, promised or None, "frames") as update,
    ):
        _write_flow(video, Path(out), video.stem, chosen, num_workers(), update)


def _write_flow(
    video: Path,
    out: Path,
    clip_id: str,
    settings: FlowSettings,
    threads: int,
    update: Callable[[int], None] = lambda done: None,
) -> None:
    timestamps_sec: list[float] = []
    shape: tuple[int, ...] = ()

    def grey_frames() -> Iterator[np.ndarray]:
        nonlocal shape
        for time_sec, frame in counted(decode_timed(video, settings.size)):
            timestamps_sec.append(time_sec)
            shape = frame.shape
            yield cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            update(len(timestamps_sec))
        if len(timestamps_sec) < 2:
            raise UnreadableVideo("fewer than 2 frames", video)

    fields = api.compute_levels(
        grey_frames(),
        method=settings.method,
        preset=settings.preset,
        backend=settings.backend,
        bound_px=settings.bound_px,
        threads=_solved_at_once(video, settings.size, threads),
    )
    with pack.pack_writer(out) as add:
        for index, levels in enumerate(fields):
            for name, component in zip(pack.flow_names(index), levels, strict=True):
                add(name, pack.encode_jpeg(component, settings.quality))
        meta = source_meta(video, clip_id, timestamps_sec, shape, settings.quality)
        chosen = {key: getattr(settings, key) for key in ("method", "preset", "backend")}
        meta |= chosen | {"bound_px": settings.bound_px, "num_fields": len(timestamps_sec) - 1}
        add(pack.META, pack.meta_bytes(meta))


def _solved_at_once(video: Path, size: Size, threads: int) -> int:
    """So many of the threads as the working memory allows."""
    with opened(video) as capture:
        width = capture.get(cv2.CAP_PROP_FRAME_WIDTH)
        height = capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    pixels = int(width * height) if size is None else size[0] * size[1]
    return min(threads, max(1, MOST_BYTES // (_BYTES_PER_PX * pixels)))
