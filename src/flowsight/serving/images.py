"""A stranger's image in memory: looked at before it is decoded, read as the pipeline does."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowsight.datasets.images import pairs
from flowsight.datasets.images.pairs import MAX_PIXELS, Image
from flowsight.errors import InputError
from flowsight.serving.memory import NO_LIMITS, Limits

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")


@dataclass(frozen=True, eq=False)
class ImageInMemory:
    """An image as a network over images takes it."""

    pixels: Image
    """(H, W, 3) uint8 RGB, turned as its EXIF says."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time spent on `decode`."""


def load(path: Path, limits: Limits = NO_LIMITS) -> ImageInMemory:
    """Read an image.

    A small file may unfold to gigabytes, so its header is read first (by Pillow, which then does
    nothing more); what decodes it is the pipeline's own reader.

    Args:
        path: a file of `FORMATS`.
        limits: `max_bytes` and `max_side_px` are read; more than `MAX_PIXELS` are never.

    Raises:
        InputError: no such file, no image, another format, cut off, or beyond the limits. Says
            nothing of the folder it lies in.
    """
    start = time.perf_counter()
    check(path, limits)
    pixels = pairs.read_image(path)
    return ImageInMemory(pixels, {"decode": time.perf_counter() - start})


def check(path: Path, limits: Limits) -> None:
    """Refuse what the file's size and header give away; see `load`."""
    if not path.is_file():
        raise InputError(f"expected an image in {path.name}, found no such file")
    size = path.stat().st_size
    if limits.max_bytes is not None and size > limits.max_bytes:
        most = f"{limits.max_bytes / 1e6:g} MB"
        raise InputError(f"expected an image of at most {most}, got {size / 1e6:.1f} MB")
    with path.open("rb") as file:
        check_header(file, path.name, limits)


def check_header(file: Any, name: str, limits: Limits) -> None:
    """Refuse what is no image, or one of too many pixels; nothing is decoded.

    Args:
        file: open for reading bytes.
        name: of the image, for the error.
        limits: `max_side_px` is read.

    Raises:
        InputError: see `load`.
    """
    from PIL import Image as Pillow

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many pixels: we have a limit of our own
            with Pillow.open(file, formats=FORMATS) as image:
                width, height = image.size
    except Pillow.DecompressionBombError:
        raise InputError(f"expected at most {MAX_PIXELS:,} pixels in {name}, got more") from None
    except Exception:  # its parsers raise whatever broken bytes make them
        raise InputError(
            f"expected an image ({', '.join(FORMATS)}), got something else in {name}"
        ) from None
    if max(width, height) > limits.max_side_px or width * height > MAX_PIXELS:
        raise InputError(
            f"expected at most {limits.max_side_px} px a side and {MAX_PIXELS:,} pixels in {name}, "
            f"got {width} x {height}"
        )
