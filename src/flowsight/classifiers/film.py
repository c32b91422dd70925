"""A film of a prediction: the frames with the attention of each network and the best class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from flowsight import progress
from flowsight.serving.result import Prediction
from flowsight.video import heat, pack
from flowsight.video.film import write_film

LEAST_HEIGHT_PX = 240
"""Smaller frames are shown larger, so that the text fits."""
MOST_HEIGHT_PX = 480
_TITLE_PX, _GAP_PX = 28, 4


def write_overlay(found: Prediction, path: Path) -> None:
    """Write the film: the maps side by side; of two streams the spatial one's on the left.

    Args:
        found: predicted with `attention=True`.
        path: `.webm`, `.mp4` or `.avi`.

    Raises:
        InputError: another ending, or an OpenCV that lacks the codec.
        ValueError: a prediction without attention.
    """
    if found.attention is None or found.clip is None:
        raise ValueError("expected a prediction with attention")
    fps = max(1.0, found.num_frames / found.duration_sec)
    shown = progress.track(_pictures(found), f"overlay of {found.video}", total=found.num_frames)
    write_film(path, iter(shown), fps)


def _pictures(found: Prediction) -> Iterator[np.ndarray]:
    assert found.attention is not None and found.clip is not None
    panels = found.panels()
    for index in range(found.num_frames):
        frame = _scaled(pack.read_frames(found.clip.frames, [index])[0])  # type: ignore[arg-type]
        sides = [
            _titled(heat.overlay(frame, found.attention[name][index]), title)
            for name, title in panels
        ]
        yield np.hstack(_with_gaps(sides))


def _with_gaps(sides: list[np.ndarray]) -> list[np.ndarray]:
    gap = np.full((sides[0].shape[0], _GAP_PX, 3), 255, np.uint8)
    return [sides[0], *(part for side in sides[1:] for part in (gap, side))]


def _scaled(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    wanted = min(max(height, LEAST_HEIGHT_PX), MOST_HEIGHT_PX)
    if wanted == height:
        return frame
    method = cv2.INTER_AREA if wanted < height else cv2.INTER_LINEAR
    return cv2.resize(frame, (round(width * wanted / height), wanted), interpolation=method)


def _titled(image: np.ndarray, text: str) -> np.ndarray:
    title = np.full((_TITLE_PX, image.shape[1], 3), 255, np.uint8)
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(title, text, (6, 20), font, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([title, image])
