"""What a video really holds: found by decoding it, never by its header."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flowsight.video.decode import (
    MAX_FRAMES,
    MAX_SIDE_PX,
    UnreadableVideo,
    decode_timed,
    frame_rate,
    opened,
    promised_frames,
)

__all__ = ["UnreadableVideo", "VideoInfo", "probe"]


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """Facts about one video."""

    width: int
    """px, of the decoded frames."""
    height: int
    fps: float
    """By the header; 25 where it gives none."""
    num_frames: int
    """Frames that decode."""
    num_frames_header: int
    """Frames the header promises; 0 where it says nothing."""


def probe(
    path: Path | str, *, max_frames: int = MAX_FRAMES, max_side_px: int = MAX_SIDE_PX
) -> VideoInfo:
    """Decode a video once and say what is in it.

    Args:
        path: the file.
        max_frames: refuse longer videos (none is decoded further than this).
        max_side_px: refuse wider or taller ones.

    Raises:
        UnreadableVideo: see `decode_timed`; its `reason` is short and holds no path.
    """
    with opened(path, max_side_px=max_side_px) as capture:
        fps = frame_rate(capture)
        num_frames_header = promised_frames(capture)
    num_frames, height, width = 0, 0, 0
    for _, frame in decode_timed(path, max_frames=max_frames, max_side_px=max_side_px):
        num_frames += 1
        height, width = frame.shape[:2]
    return VideoInfo(
        width=width,
        height=height,
        fps=fps,
        num_frames=num_frames,
        num_frames_header=num_frames_header,
    )
