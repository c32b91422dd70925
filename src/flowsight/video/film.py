"""Writing films of pictures, with the codecs that OpenCV's wheels have (no H.264)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from flowsight.errors import InputError
from flowsight.files import atomic_file

CODECS = {".webm": "VP80", ".mp4": "mp4v", ".avi": "MJPG"}
"""Ending -> codec. Every browser plays VP8; players, not browsers, play the other two."""
ENDINGS = tuple(CODECS)


def write_film(path: Path, images: Iterator[np.ndarray], fps: float) -> None:
    """Write pictures as a film, atomically.

    Args:
        path: `.webm`, `.mp4` or `.avi`.
        images: (H, W, 3) uint8 RGB, all of one size; odd sides lose a row or column.
        fps: pictures per second.

    Raises:
        InputError: another ending, or an OpenCV without the codec.
    """
    check_ending(path)
    with atomic_file(path) as temporary:
        named = temporary.with_suffix(f".part{path.suffix.lower()}")  # OpenCV goes by the ending
        try:
            first = next(images)
            height, width = (side // 2 * 2 for side in first.shape[:2])
            with _silent():
                codec = cv2.VideoWriter.fourcc(*CODECS[path.suffix.lower()])
                writer = cv2.VideoWriter(str(named), codec, fps, (width, height))
            if not writer.isOpened():
                kind = CODECS[path.suffix.lower()]
                raise InputError(f"expected an OpenCV that writes {kind} for {path}, got none")
            writer.write(cv2.cvtColor(first[:height, :width], cv2.COLOR_RGB2BGR))
            for image in images:
                writer.write(cv2.cvtColor(image[:height, :width], cv2.COLOR_RGB2BGR))
            writer.release()
            named.replace(temporary)
        finally:
            named.unlink(missing_ok=True)


def check_ending(path: Path) -> None:
    """Raise InputError unless the file's ending names a film that can be written."""
    if path.suffix.lower() not in CODECS:
        raise InputError(
            f"expected a film's name ending with {', '.join(CODECS)}, got {path.name!r}"
        )


@contextmanager
def _silent() -> Iterator[None]:
    """Keep a line about WebM's tags, which OpenCV prints past every log level, off stderr."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
