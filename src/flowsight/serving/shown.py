"""Pictures and masks small enough for an answer: base64 of PNGs."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from flowsight.batches.sampling import even_positions
from flowsight.video import heat, pack

if TYPE_CHECKING:
    from flowsight.serving.result import Prediction

SHOWN_FRAMES = 4
SHOWN_HEIGHT_PX = 120


def attention(found: Prediction) -> dict[str, Any]:
    """Attention of a few frames, small enough for an answer.

    Returns:
        frames (indices), and for each stream (or the network) maps (nested lists, frame x row x
        column, 0..255) and picture (base64 of a PNG: the frames side by side with the map over
        each).
    """
    assert found.attention is not None and found.clip is not None
    count = min(SHOWN_FRAMES, found.num_frames)
    chosen = even_positions(found.num_frames, count).tolist()
    frames = pack.read_frames(found.clip.frames, chosen)  # type: ignore[arg-type]
    answer: dict[str, Any] = {"frames": chosen}
    for name, every in found.attention.items():
        maps = every[chosen]
        laid = [_small(heat.overlay(f, m)) for f, m in zip(frames, maps, strict=True)]
        answer[name] = {"maps": maps.tolist(), "picture": _picture(np.concatenate(laid, axis=1))}
    return answer


def _small(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    if height <= SHOWN_HEIGHT_PX:
        return image
    size = (max(1, round(width * SHOWN_HEIGHT_PX / height)), SHOWN_HEIGHT_PX)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _picture(image: np.ndarray) -> str:
    return text(png(cv2.cvtColor(image, cv2.COLOR_RGB2BGR)))


def png(image: np.ndarray, *, bilevel: bool = False) -> bytes:
    """A picture as PNG.

    Args:
        image: (H, W) or, blue first, (H, W, 3), uint8.
        bilevel: of 0 and 255 only, a bit a pixel.
    """
    options = [cv2.IMWRITE_PNG_BILEVEL, 1] if bilevel else []
    _, data = cv2.imencode(".png", image, options)
    return data.tobytes()


def text(data: bytes) -> str:
    """Bytes as base64, for JSON."""
    return base64.b64encode(data).decode("ascii")
