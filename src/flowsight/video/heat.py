"""Pictures of attention maps laid over what the network saw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[Any]


def overlay(image: Image, attention: Image, *, strength: float = 0.5) -> Image:
    """Lay a map over a picture, in colours from blue (none) to red (strongest).

    Args:
        image: (H, W, 3) uint8 RGB.
        attention: (h, w) uint8, scaled to the picture bilinearly.
        strength: share of the colours in the mix.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    height, width = image.shape[:2]
    scaled = cv2.resize(attention, (width, height), interpolation=cv2.INTER_LINEAR)
    colours = cv2.cvtColor(cv2.applyColorMap(scaled, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
    return cv2.addWeighted(image, 1 - strength, colours, strength, 0)


def flow_picture(field: Image) -> Image:
    """Colours of a stored flow field: hue is the direction, saturation the length.

    Args:
        field: (2, H, W) uint8, quantised u and v (127.5 is no motion).

    Returns:
        (H, W, 3) uint8 RGB; white where nothing moves. The longest vector is fully saturated.
    """
    u, v = field.astype(np.float32) - 127.5
    length, angle = cv2.cartToPolar(u, v, angleInDegrees=True)
    hue = (angle / 2).astype(np.uint8)
    saturation = np.clip(255 * length / max(float(length.max()), 8.0), 0, 255).astype(np.uint8)
    hsv = np.stack([hue, saturation, np.full_like(hue, 255)], axis=-1)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def save_strip(images: Sequence[Image], path: Path) -> None:
    """Write RGB pictures of one height side by side as a PNG."""
    strip = cv2.cvtColor(np.concatenate(list(images), axis=1), cv2.COLOR_RGB2BGR)
    encoded, content = cv2.imencode(".png", strip)
    if not encoded:
        raise RuntimeError(f"OpenCV could not encode {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.tobytes())
