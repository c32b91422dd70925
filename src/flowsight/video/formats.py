"""Files of the sample data set, the same bytes for the same content."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from flowsight.errors import ResourceError

_EPOCH = (1980, 1, 1, 0, 0, 0)
_VIDEO_QUALITY = 88


def write_video(path: Path, frames: np.ndarray, fps: float) -> None:
    """Write (T, H, W, 3) uint8 RGB frames as a Motion-JPEG AVI, by OpenCV's own writer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = (frames.shape[2], frames.shape[1])
    fourcc = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, fourcc, fps, size)
    if not writer.isOpened():
        raise ResourceError(f"expected to write a video, got no writer for {path}; is there space?")
    writer.set(cv2.VIDEOWRITER_PROP_QUALITY, _VIDEO_QUALITY)
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[:, :, ::-1]))
    writer.release()


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a compressed .npz without clocks (numpy's own writer stamps the time)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(arrays):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(arrays[name]))
            member = zipfile.ZipInfo(f"{name}.npy", date_time=_EPOCH)
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, buffer.getvalue(), compresslevel=6)


def write_image(path: Path, image: np.ndarray, quality: int = 92) -> None:
    """Write an image, (H, W) grey or (H, W, 3) RGB uint8; the format follows from the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix == ".jpg" else []
    bgr = image if image.ndim == 2 else np.ascontiguousarray(image[:, :, ::-1])
    encoded, content = cv2.imencode(path.suffix, bgr, options)
    if not encoded:
        raise ResourceError(f"expected to encode an image, got nothing for {path}; report this")
    path.write_bytes(content.tobytes())
