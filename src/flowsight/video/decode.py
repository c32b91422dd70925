"""Decoding: RGB frames and time stamps of a video file, through OpenCV's FFmpeg."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from flowsight.errors import InputError

MAX_FRAMES = 100_000
"""Over an hour at 25 fps: longer files are hardly clips of one action."""
MIN_SIDE_PX = 16
MAX_SIDE_PX = 8192
ASSUMED_FPS = 25.0
"""Stands in for a frame rate that the header does not give, or gives absurdly."""

_log_lock = threading.Lock()
_log_state = {"users": 0, "level": 0}


class UnreadableVideo(InputError):  # noqa: N818 (the name says what it is)
    """A file no frames can be taken from.

    Args:
        reason: a few words without paths, the same on every machine ("empty file").
        path: the file, for the message.
    """

    def __init__(self, reason: str, path: Path | str | None = None) -> None:
        self.reason = reason
        where = "" if path is None else f" in {path}"
        super().__init__(f"expected a readable video, got {reason}{where}; replace or remove it")


def decode(path: Path | str, size: tuple[int, int] | None = None) -> Iterator[np.ndarray]:
    """Yield the frames of a video that really decode.

    Args:
        path: the file.
        size: width and height in px to scale to; None keeps the video's.

    Yields:
        (H, W, 3) uint8 RGB.

    Raises:
        UnreadableVideo: as `decode_timed`.
    """
    for _, frame in decode_timed(path, size):
        yield frame


def decode_timed(
    path: Path | str,
    size: tuple[int, int] | None = None,
    *,
    max_frames: int = MAX_FRAMES,
    max_side_px: int = MAX_SIDE_PX,
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield time stamp and frame of every frame that really decodes.

    A file that ends early gives the frames before the break; what its header promises plays
    no part. Time stamps are the container's, in seconds; where it gives none, or one that does
    not grow, the last one plus a frame's duration.

    Args:
        path: the file.
        size: width and height in px to scale to; None keeps the video's.
        max_frames: refuse longer videos.
        max_side_px: refuse wider or taller ones.

    Yields:
        (seconds, (H, W, 3) uint8 RGB).

    Raises:
        UnreadableVideo: missing, empty, not a video, no frame decodes, frames change their
            size, or a limit is passed.
    """
    with opened(path, max_side_px=max_side_px) as capture:
        fps = frame_rate(capture)
        time_sec, shape, count = -1 / fps, None, 0
        while True:
            ok, frame = capture.read()
            if not ok:
                break
            if count == max_frames:
                raise UnreadableVideo(f"more than {max_frames} frames", path)
            if shape is not None and frame.shape != shape:
                raise UnreadableVideo(f"frame size changes at frame {count}", path)
            stamp_sec = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            time_sec = stamp_sec if stamp_sec > time_sec else time_sec + 1 / fps
            shape, count = frame.shape, count + 1
            yield round(time_sec, 6), resize(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), size)
        if count == 0:
            raise UnreadableVideo("no frame decodes", path)


def resize(frame: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Scale a frame: averaging when it shrinks on both axes, else bilinear (as denseflow).

    Args:
        frame: (H, W, 3) uint8.
        size: new width and height in px, or None.

    Returns:
        (height, width, 3) uint8; the frame itself if it has that size.
    """
    height, width = frame.shape[:2]
    if size is None or tuple(size) == (width, height):
        return frame
    shrinks = size[0] <= width and size[1] <= height
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def frame_rate(capture: cv2.VideoCapture) -> float:
    """Frames per second by the header, `ASSUMED_FPS` where that is absurd."""
    fps = capture.get(cv2.CAP_PROP_FPS)
    return float(fps) if math.isfinite(fps) and 0 < fps <= 1000 else ASSUMED_FPS


def promised_frames(capture: cv2.VideoCapture) -> int:
    """Frames that the header promises, 0 where it says nothing usable."""
    promised = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    # streams without a length give a huge negative number
    return int(promised) if math.isfinite(promised) and 0 < promised < 2e9 else 0


@contextmanager
def opened(path: Path | str, *, max_side_px: int = MAX_SIDE_PX) -> Iterator[cv2.VideoCapture]:
    """Open a video for reading with one decoding thread, and without log lines.

    One thread: clips are decoded in parallel, and each is then 6 to 47 % cheaper (measured).

    Raises:
        UnreadableVideo: missing, empty, not a video, or sides outside the limits.
    """
    path = Path(path)
    _check_file(path)
    with _quiet():
        options = [cv2.CAP_PROP_N_THREADS, 1]
        capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG, options)
        try:
            if not capture.isOpened():
                raise UnreadableVideo("not a video", path)
            width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
            height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
            if not MIN_SIDE_PX <= min(width, height) <= max(width, height) <= max_side_px:
                limits = f"{MIN_SIDE_PX}..{max_side_px} px"
                raise UnreadableVideo(f"frame size {width}x{height} outside {limits}", path)
            yield capture
        finally:
            capture.release()


def _check_file(path: Path) -> None:
    if not path.exists():
        raise UnreadableVideo("missing file", path)
    if not path.is_file():
        raise UnreadableVideo("not a file", path)
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except PermissionError:
        raise UnreadableVideo("no permission to read", path) from None
    if not start:
        raise UnreadableVideo("empty file", path)
    # FFmpeg takes playlists for videos and would open whatever other files they name
    if _is_text(start) and not start.startswith(b"YUV4MPEG2"):
        raise UnreadableVideo("not a video (text)", path)


def _is_text(start: bytes) -> bool:
    return all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence OpenCV and FFmpeg, whose lines say nothing that our errors do not."""
    # FFmpeg's level is read from the environment once, when the first video is opened
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    logging = cv2.utils.logging
    with _log_lock:
        if _log_state["users"] == 0:
            _log_state["level"] = logging.getLogLevel()
            logging.setLogLevel(logging.LOG_LEVEL_SILENT)
        _log_state["users"] += 1
    try:
        yield
    finally:
        with _log_lock:
            _log_state["users"] -= 1
            if _log_state["users"] == 0:
                logging.setLogLevel(_log_state["level"])
