"""The work of the stages `frames` and `flow`: a shard's videos into packs.

Every clip's video is decoded once per stage. A clip that fails is quarantined with its reason
in `status.csv`; it never stops the run and never vanishes. Bytes do not depend on the number of
workers (`FLOWSIGHT_WORKERS`).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from flowsight import files
from flowsight.errors import InputError
from flowsight.video import pack
from flowsight.video.decode import MIN_SIDE_PX, decode_timed
from flowsight.video.shard import ShardClip, work_through
from flowsight.video.workers import counted

Size = tuple[int, int] | None
"""Width and height in px; None keeps the video's."""


def pack_frames(
    shard_dir: Path, out: Path, *, size: Size, quality: int, keep: Path | None = None
) -> None:
    """Store the frames of a shard's clips: the stage `frames`.

    Args:
        shard_dir: `clips.csv` (clip_id, path, sha256) and `videos/<path>`.
        out: folder for `<clip_id>.zip` and `status.csv` (clip_id, status, reason).
        size: width and height in px; None keeps each video's.
        quality: JPEG quality, 1..100.
        keep: where finished clips wait, so that a killed run goes on (see `work_through`).

    Raises:
        InputError: wrong settings, or a shard folder that is not one.
        ResourceError: no space left, or a worker was killed; `out` is as it was before.
    """
    check_storage(size=size, quality=quality)
    work = partial(_pack_clip, size=size, quality=quality)
    work_through(Path(shard_dir), Path(out), work, "frames", keep=keep)


def _pack_clip(clip: ShardClip, target: Path, threads: int, *, size: Size, quality: int) -> None:
    frames_of_video(clip.video, target, clip_id=clip.clip_id, size=size, quality=quality)


def frames_of_video(video: Path, out: Path, *, clip_id: str, size: Size, quality: int) -> None:
    """Decode one video and write its frames pack.

    Raises:
        UnreadableVideo: see `decode_timed`.
    """
    timestamps_sec: list[float] = []
    shape: tuple[int, ...] = ()
    with pack.pack_writer(out) as add:
        for time_sec, frame in counted(decode_timed(video, size)):
            add(pack.frame_name(len(timestamps_sec)), pack.encode_jpeg(frame, quality))
            timestamps_sec.append(time_sec)
            shape = frame.shape
        meta = source_meta(video, clip_id, timestamps_sec, shape, quality)
        add(pack.META, pack.meta_bytes(meta))


def check_storage(*, size: Size, quality: int) -> None:
    """Raise InputError unless frames can be stored this way."""
    if not 1 <= quality <= 100:
        raise InputError(f"expected a JPEG quality of 1..100, got {quality}")
    if size is not None and (len(size) != 2 or min(size) < MIN_SIDE_PX):
        raise InputError(f"expected size as width and height >= {MIN_SIDE_PX} px, got {size}")


def source_meta(
    video: Path, clip_id: str, timestamps_sec: list[float], shape: tuple[int, ...], quality: int
) -> dict[str, Any]:
    """What both kinds of packs say of their video; `shape` is a stored frame's (H, W, ...)."""
    return {
        "clip_id": clip_id,
        "sha256": files.sha256(video),
        "timestamps_sec": timestamps_sec,
        "size": [shape[1], shape[0]],
        "quality": quality,
        "num_frames": len(timestamps_sec),
    }
