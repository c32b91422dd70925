"""A look at a flow pack: a picture of a few moments and a film, frames beside colour-coded flow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from flowsight import progress
from flowsight.files import atomic_file
from flowsight.flow.colors import flow_to_rgb, legend
from flowsight.flow.quantize import dequantize
from flowsight.video import pack
from flowsight.video.decode import decode
from flowsight.video.film import write_film

MOMENTS = 4
"""Rows of the picture."""
SHOWN_AT_MOST_PX = 480
"""Wider frames are shown smaller."""
_GAP, _TEXT_HEIGHT = 4, 22


def preview(video: Path, flow_pack: Path, picture: Path, film: Path) -> float:
    """Write a PNG with a few moments and a WebM with every frame.

    Args:
        video: the file that the pack was made of.
        flow_pack: a flow pack.
        picture, film: files to write (`.png`, `.webm`).

    Returns:
        The displacement shown fully saturated, px per frame.

    Raises:
        InputError: the pack is broken, or the film cannot be written here.
    """
    meta = pack.read_meta(flow_pack)
    count, bound_px = meta["num_fields"], meta["bound_px"]
    longest_px = _longest(flow_pack, count, bound_px)
    chosen = set(np.linspace(0, count - 1, min(MOMENTS, count)).round().astype(int).tolist())
    rows: list[np.ndarray] = []

    def sides() -> Iterator[np.ndarray]:
        frames = decode(video, tuple(meta["size"]))
        for index, (frame, _) in enumerate(pairwise(frames)):
            levels = pack.read_flow(flow_pack, [index])[0]
            row = _side_by_side(frame, dequantize(levels, bound_px), longest_px)
            if index in chosen:
                rows.append(_titled(row, f"frame {index}"))
            yield row

    fps = (count + 1) / max(meta["timestamps_sec"][-1], 1e-3)
    write_film(film, progress.track(sides(), f"preview of {video.name}", total=count), fps)
    _write_picture(picture, rows, longest_px)
    return longest_px


def _longest(flow_pack: Path, count: int, bound_px: float) -> float:
    """99th percentile of the lengths, over at most 30 fields, at least 1 px."""
    chosen = np.unique(np.linspace(0, count - 1, min(30, count)).round().astype(int))
    fields = dequantize(pack.read_flow(flow_pack, chosen.tolist()), bound_px)
    return max(1.0, float(np.percentile(np.hypot(fields[:, 0], fields[:, 1]), 99)))


def _side_by_side(frame: np.ndarray, flow: np.ndarray, longest_px: float) -> np.ndarray:
    height, width = frame.shape[:2]
    pair = [frame, flow_to_rgb(flow, longest_px)]
    if width > SHOWN_AT_MOST_PX:
        size = (SHOWN_AT_MOST_PX, round(height * SHOWN_AT_MOST_PX / width))
        pair = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in pair]
    gap = np.full((pair[0].shape[0], _GAP, 3), 255, np.uint8)
    return np.hstack([pair[0], gap, pair[1]])


def _titled(row: np.ndarray, text: str) -> np.ndarray:
    title = np.full((_TEXT_HEIGHT, row.shape[1], 3), 255, np.uint8)
    return np.vstack([_write(title, text, (4, 15)), row])


def _write(image: np.ndarray, text: str, at: tuple[int, int]) -> np.ndarray:
    font = cv2.FONT_HERSHEY_SIMPLEX
    return cv2.putText(image, text, at, font, 0.45, (0, 0, 0), 1, cv2.LINE_AA)


def _write_picture(path: Path, rows: Sequence[np.ndarray], longest_px: float) -> None:
    width = rows[0].shape[1]
    wheel = legend(64)
    foot = np.full((80, width, 3), 255, np.uint8)
    foot[8:72, 8:72] = wheel
    _write(foot, f"edge of the wheel: {longest_px:.1f} px/frame", (84, 36))
    _write(foot, "colour = direction, white = still", (84, 56))
    picture = np.vstack([*rows, foot])
    _, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    with atomic_file(path) as temporary:
        temporary.write_bytes(data.tobytes())
