"""A static camera's frames of a stranger, one by one: of a video, or pictures in a zip or a folder.

Pictures are read as the pipeline reads them (`datasets.scenes.videos`), so that of the same files
it finds the same to the bit; a video has lost something when it was compressed. Only one frame is
in memory at a time.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from flowsight.errors import InputError
from flowsight.metrics.change_detection import Grey
from flowsight.serving import images
from flowsight.serving.memory import NO_LIMITS, Limits
from flowsight.video.decode import (
    UnreadableVideo,
    decode_timed,
    frame_rate,
    opened,
    promised_frames,
)

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
MAX_FRAME_PX = 1920 * 1088
"""Of a frame: the networks keep hundreds of numbers of every pixel."""
# also: encrypted, of a method that Python lacks
_BROKEN = (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError, OSError)


@dataclass(frozen=True)
class Stream:
    """Frames that are read when they are asked for, as often as wanted."""

    path: Path
    limits: Limits
    pictures: tuple[str, ...] | None
    """Names of the pictures by frame; None: a video."""
    fps: float | None
    """By the video's header; None of pictures, which have none."""
    promised: int
    """Frames, 0 if the header does not say."""
    seconds: dict[str, float] = field(default_factory=dict)

    def frames(self, *, colour: bool) -> Iterator[Grey]:
        """Each frame, (H, W, 3) uint8 blue, green, red if `colour`, else (H, W, 1) grey.

        Raises:
            InputError: no picture or no video, frames of several sizes, or beyond the limits.
        """
        found = _of_video(self, colour) if self.pictures is None else _of_pictures(self, colour)
        shape = None
        for frame in found:
            _check_size(frame.shape[1], frame.shape[0])
            if shape is not None and frame.shape != shape:
                raise InputError(f"expected frames of one size, got {shape} and {frame.shape}")
            shape = frame.shape
            yield frame


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_FRAME_PX:
        raise InputError(
            f"expected frames of at most {MAX_FRAME_PX:,} pixels, got {width} x {height}"
        )


def load(path: Path, limits: Limits = NO_LIMITS) -> Stream:
    """Look at a file before anything of it is decoded.

    Args:
        path: a video of any format OpenCV reads; a zip of pictures (`SUFFIXES`, in the order of
            their names); or a folder of them, or of `input/` with them.
        limits: what is refused.

    Raises:
        InputError: neither, or beyond the limits.
    """
    if path.is_dir():
        return _pictures(path, _names_in(path), limits)
    if path.is_file() and limits.max_bytes is not None:
        size, most = path.stat().st_size, limits.max_bytes
        if size > most:
            text = f"{size / 1e6:.1f} MB where at most {most / 1e6:g} MB are allowed"
            raise UnreadableVideo(text, path)
    if path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return _pictures(path, archive.namelist(), limits)
    with opened(path, max_side_px=limits.max_side_px) as capture:
        fps, promised = frame_rate(capture), promised_frames(capture)
        sides = [capture.get(k) for k in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
    _check_size(*(int(side) for side in sides))
    if limits.max_sec is not None and promised / fps > limits.max_sec:
        text = f"a video of {promised / fps:.1f} s where at most {limits.max_sec:g} s are allowed"
        raise UnreadableVideo(text, path)
    return Stream(path, limits, None, fps, promised)


def _names_in(folder: Path) -> list[str]:
    """Of a folder's files; where it has `input/`, of those in there."""
    place = folder / "input" if (folder / "input").is_dir() else folder
    return [path.relative_to(folder).as_posix() for path in place.iterdir() if path.is_file()]


def _pictures(path: Path, names: Sequence[str], limits: Limits) -> Stream:
    chosen = sorted(n for n in names if PurePosixPath(n).suffix.lower() in SUFFIXES)
    if not chosen:
        raise InputError(f"expected pictures ({', '.join(SUFFIXES)}) in {path.name}, found none")
    if len(chosen) > limits.max_frames:
        raise InputError(f"expected at most {limits.max_frames} frames, got {len(chosen)}")
    return Stream(path, limits, tuple(chosen), None, len(chosen))


def _of_video(stream: Stream, colour: bool) -> Iterator[Grey]:
    limits = stream.limits
    decoded = decode_timed(
        stream.path, max_frames=limits.max_frames, max_side_px=limits.max_side_px
    )
    for time_sec, frame in decoded:
        if limits.max_sec is not None and time_sec > limits.max_sec:
            raise UnreadableVideo(f"more than {limits.max_sec:g} s of video", stream.path)
        code = cv2.COLOR_RGB2BGR if colour else cv2.COLOR_RGB2GRAY
        yield np.atleast_3d(cv2.cvtColor(frame, code)).astype(np.uint8, copy=False)


def _of_pictures(stream: Stream, colour: bool) -> Iterator[Grey]:
    assert stream.pictures is not None
    for name, content in _contents(stream, stream.pictures):
        short = PurePosixPath(name).name
        images.check_header(io.BytesIO(content), short, stream.limits)
        flags = cv2.IMREAD_COLOR if colour else cv2.IMREAD_GRAYSCALE
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
        if image is None:
            raise InputError(f"expected a picture in {short}, got something else")
        yield np.atleast_3d(image).astype(np.uint8, copy=False)


def _contents(stream: Stream, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Bytes of each picture; of a zip in all no more than is allowed for it, however it unfolds."""
    if stream.path.is_dir():
        for name in names:
            yield name, (stream.path / name).read_bytes()
        return
    most, count = stream.limits.max_bytes, 0
    with zipfile.ZipFile(stream.path) as archive:
        for name in names:
            try:
                with archive.open(name) as file:
                    content = file.read(-1 if most is None else most - count + 1)
            except _BROKEN as error:
                raise InputError(f"expected a readable zip, got: {error}") from None
            count += len(content)
            if most is not None and count > most:
                raise InputError(f"expected pictures of at most {most / 1e6:g} MB, got more")
            yield name, content
