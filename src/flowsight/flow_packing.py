"""The work of the stage `flow`: optical flow of a shard's videos into packs.

As `packing`: each video is decoded once, a clip that fails is quarantined with its reason, and
bytes do not depend on the number of workers. Flow is never computed from stored JPEGs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flowsight import progress
from flowsight.errors import InputError
from flowsight.flow import api
from flowsight.flow.quantize import check_bound, quantize
from flowsight.packing import Size, check_storage, source_meta
from flowsight.video import pack
from flowsight.video.decode import UnreadableVideo, decode_timed, opened, promised_frames
from flowsight.video.shard import Item, ShardClip, Watch, naming_full_disk, work_through


def pack_flow(
    shard_dir: Path,
    out: Path,
    *,
    method: str,
    preset: str,
    backend: str,
    bound_px: float,
    quality: int,
    size: Size,
) -> None:
    """Store the optical flow of a shard's clips: the stage `flow`.

    Args:
        shard_dir: as for `pack_frames`.
        out: folder for `<clip_id>.zip` and `status.csv`.
        method, preset, backend: see `flow.compute`; the backend must be named, since `auto`
            could give other bytes on another machine.
        bound_px: displacements are clipped to +- this and quantised to uint8.
        quality: JPEG quality, 1..100.
        size: width and height in px that flow is computed at; None keeps each video's.

    Raises:
        InputError, ResourceError: as `pack_frames`.
    """
    if backend == "auto":
        raise InputError(
            "expected a named flow.backend in a stage, got 'auto'; use cpu, torch or opencv"
        )
    settings: dict[str, Any] = {"method": method, "preset": preset, "backend": backend}
    settings |= {"bound_px": bound_px, "quality": quality, "size": size}
    _check_flow(**settings)

    def work(clip: ShardClip, target: Path, watch: Watch) -> None:
        # clips run side by side, so each is solved by one thread
        _write_flow(clip.video, target, clip_id=clip.clip_id, watch=watch, threads=1, **settings)

    work_through(Path(shard_dir), Path(out), work, "flow")


def flow_of_video(
    video: Path,
    out: Path,
    *,
    method: str = "tvl1",
    preset: str = "opencv",
    backend: str = "auto",
    bound_px: float = 20.0,
    quality: int = 95,
    size: Size = None,
) -> None:
    """Optical flow of one video as a pack, with progress: a user's own file.

    Args:
        video: any format OpenCV reads; its stem becomes the clip_id.
        out: the zip to write; replaced only when all went well.
        method, preset, backend, bound_px, quality, size: as for `pack_flow`.

    Raises:
        InputError: wrong settings; UnreadableVideo for the video.
        ResourceError: no space left.
    """
    settings: dict[str, Any] = {"method": method, "preset": preset, "backend": backend}
    settings |= {"bound_px": bound_px, "quality": quality, "size": size}
    _check_flow(**settings)
    video = Path(video)
    with opened(video) as capture:
        promised = promised_frames(capture)  # good enough for the time left

    def watch(frames: Iterable[Item]) -> Iterator[Item]:
        return progress.track(frames, f"flow of {video.name}", total=promised or None)

    with naming_full_disk(Path(out)):
        _write_flow(video, Path(out), clip_id=video.stem, watch=watch, **settings)


def _check_flow(
    *, method: str, preset: str, backend: str, bound_px: float, quality: int, size: Size
) -> None:
    check_storage(size=size, quality=quality)
    check_bound(bound_px)
    api.check_settings(method=method, preset=preset, backend=backend)


def _write_flow(
    video: Path,
    out: Path,
    *,
    clip_id: str,
    method: str,
    preset: str,
    backend: str,
    bound_px: float,
    quality: int,
    size: Size,
    threads: int | None = None,
    watch: Watch = iter,
) -> None:
    timestamps_sec: list[float] = []
    shape: tuple[int, ...] = ()

    def grey_frames() -> Iterator[np.ndarray]:
        nonlocal shape
        for time_sec, frame in watch(decode_timed(video, size)):
            timestamps_sec.append(time_sec)
            shape = frame.shape
            yield cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)

    with pack.pack_writer(out) as add:
        num_fields = 0
        fields = api.compute_clip(
            grey_frames(), method=method, preset=preset, backend=backend, threads=threads
        )
        for field in fields:
            levels = quantize(field, bound_px)
            for name, component in zip(pack.flow_names(num_fields), levels, strict=True):
                add(name, pack.encode_jpeg(component, quality))
            num_fields += 1
        if num_fields == 0:
            raise UnreadableVideo("fewer than 2 frames", video)
        meta = source_meta(video, clip_id, timestamps_sec, shape, quality)
        meta |= {"method": method, "preset": preset, "backend": backend}
        meta |= {"bound_px": bound_px, "num_fields": num_fields}
        add(pack.META, pack.meta_bytes(meta))
