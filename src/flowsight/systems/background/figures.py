"""Frames with their truth and what each method found, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from flowsight.datasets.scenes import videos
from flowsight.datasets.scenes.videos import Video
from flowsight.files import atomic_file, write_csv
from flowsight.metrics import change_detection
from flowsight.metrics.change_detection import MOVING, Grey, Mask
from flowsight.systems.background import counts

_PANEL_PX = 240
"""Width of a panel at most."""
_GAP_PX = 4
# blue, green, red: found, missed, taken for moving, not scored
_FOUND, _MISSED, _WRONG, _UNSCORED = (245, 245, 245), (230, 120, 40), (60, 70, 235), (120, 120, 120)


def write(shown: Sequence[tuple[Video, Mapping[str, Path]]], count: int, folder: Path) -> None:
    """Write some frames of each video, and `index.csv`.

    Args:
        shown: a video, and label -> folder of counts and masks (`scene_counts`).
        count: frames of each video: evenly drawn from those of the second half in which something
            moves, without looking at what any method found.
        folder: to fill with PNG files.
    """
    rows = []
    for video, methods in shown:
        for index in chosen_frames(video, count):
            name = f"{video.item_id(index).replace('/', '-')}.png"
            truth = videos.read_truth(video, index)
            panels = [videos.read_frame(video, index, colour=True), np.dstack([truth] * 3)]
            panels += [
                judged(counts.read_mask(path, video.video_id, index), truth)
                for path in methods.values()
            ]
            _write_png(folder / name, _side_by_side(panels))
            rows.append(
                {
                    "picture": name,
                    "video_id": video.video_id,
                    "frame": video.item_id(index).rpartition("/")[2],
                    "panels": " | ".join(["input", "truth", *methods]),
                }
            )
    write_csv(pd.DataFrame(rows), folder / "index.csv")


def chosen_frames(video: Video, count: int) -> list[int]:
    """Frame indices, evenly drawn from the second half's frames in which something moves."""
    moving = [
        index for index in video.halves()[1] if (videos.read_truth(video, index) == MOVING).any()
    ]
    places = (np.arange(count) * 2 + 1) * len(moving) // (2 * count)
    return sorted({moving[place] for place in places.tolist()} if moving else set())


def judged(mask: Mask, truth: Grey) -> Grey:
    """(H, W, 3) uint8 BGR: found white, missed blue, wrongly found red, not scored grey."""
    scored, moving = change_detection.scored_pixels(truth), truth == MOVING
    image = np.zeros((*truth.shape, 3), np.uint8)
    image[scored & moving & mask] = _FOUND
    image[scored & moving & ~mask] = _MISSED
    image[scored & ~moving & mask] = _WRONG
    image[~scored] = _UNSCORED
    return image


def _side_by_side(panels: Sequence[Grey]) -> Grey:
    height, width = panels[0].shape[:2]
    if width > _PANEL_PX:
        size = (_PANEL_PX, round(height * _PANEL_PX / width))
        panels = [
            cv2.resize(p, size, interpolation=cv2.INTER_AREA).astype(np.uint8) for p in panels
        ]
    gap = np.full((panels[0].shape[0], _GAP_PX, 3), 255, np.uint8)
    parts = [part for panel in panels for part in (panel, gap)]
    joined: Grey = np.concatenate(parts[:-1], axis=1)
    return joined


def _write_png(path: Path, image: Grey) -> None:
    _, data = cv2.imencode(".png", image)
    with atomic_file(path) as temporary:
        temporary.write_bytes(data.tobytes())
