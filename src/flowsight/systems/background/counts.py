"""What a method finds in videos, as files: counts of every scored frame, and masks; no torch.

    <out>/counts.parquet          item_id, subset, tp, fp, fn, tn
    <out>/<video_id>.zip          mask_000001.png ... of the scored frames, meta.json

Networks and OpenCV's methods write the same, so that one evaluation reads them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from flowsight import progress
from flowsight.datasets.scenes import videos as background
from flowsight.datasets.scenes.videos import Video
from flowsight.errors import InputError
from flowsight.metrics import change_detection
from flowsight.metrics.change_detection import Counts, Mask
from flowsight.video import pack

COLUMNS = ("item_id", "subset", "tp", "fp", "fn", "tn")
SUBSETS = ("train", "test", "unseen")
"""First half of the truth of a video that was trained on, its second half, and all of another."""
FILE = "counts.parquet"


def write(
    videos: Iterable[Video],
    find: Callable[[Video], Iterator[Mask]],
    trained_on: Iterable[str],
    out: Path,
) -> None:
    """Run a method over videos.

    Args:
        videos: which.
        find: a video -> (H, W) bool for each of its frames, from the first.
        trained_on: ids of the videos that it has learnt from.
        out: folder to write into.

    Raises:
        InputError: a truth that does not fit, or in which nothing moves.
    """
    rows: list[dict[str, Any]] = []
    seen = set(trained_on)
    for video in videos:
        rows += _write_video(video, find(video), video.video_id in seen, out)
    out.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table.to_parquet(out / FILE, index=False, compression="zstd")


def _write_video(
    video: Video, masks: Iterator[Mask], trained: bool, folder: Path
) -> list[dict[str, Any]]:
    first_half, _ = video.halves()
    rows: list[dict[str, Any]] = []
    total = Counts()
    path = folder / f"{video.video_id}.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    with pack.pack_writer(path) as add:
        for index in progress.track(range(video.temporal_roi.stop), f"run {video.video_id}"):
            mask = next(masks)
            if index not in video.temporal_roi:
                continue
            counts = change_detection.count(mask, background.read_truth(video, index))
            total += counts
            subset = ("train" if index in first_half else "test") if trained else "unseen"
            rows.append({"item_id": video.item_id(index), "subset": subset} | vars(counts))
            add(mask_name(index), _png(mask))
        meta = {"video_id": video.video_id, "num_masks": len(rows),
                "first": video.temporal_roi.start, "size": list(video.shape[::-1])}  # fmt: skip
        add(pack.META, pack.meta_bytes(meta))
    if total.tp + total.fn == 0:
        raise InputError(
            f"expected moving pixels (255) in the truth of {video.video_id}, found none: there is "
            "nothing to find; leave the video out of scenes.videos"
        )
    return rows


def mask_name(index: int) -> str:
    """Member of the mask of frame `index` (0-based)."""
    return f"mask_{index + 1:06d}.png"


def _png(mask: Mask) -> bytes:
    _, data = cv2.imencode(".png", mask.astype(np.uint8) * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])
    return data.tobytes()


def read_mask(folder: Path, video_id: str, index: int) -> Mask:
    """The mask of a scored frame, (H, W) bool.

    Raises:
        InputError: no such pack, or no such frame in it.
    """
    with pack.open_pack(folder / f"{video_id}.zip") as archive:
        content = np.frombuffer(archive.read(mask_name(index)), np.uint8)
    return np.asarray(cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)).astype(bool)


def read(folder: Path, videos: Iterable[Video]) -> pd.DataFrame:
    """The counts, checked against the videos: every scored frame once.

    Args:
        folder: as `write` left it.
        videos: all that must be in it.

    Returns:
        `COLUMNS` and video_id.

    Raises:
        InputError: no such file, other columns or other frames.
    """
    path = folder / FILE
    if not path.is_file():
        raise InputError(f"expected predictions in {path}, found no such file; run `dvc repro`")
    table = pd.read_parquet(path)
    if tuple(table.columns) != COLUMNS:
        raise InputError(
            f"expected the columns {', '.join(COLUMNS)} in {path}, got {', '.join(table.columns)}"
        )
    expected = [video.item_id(index) for video in videos for index in video.temporal_roi]
    if sorted(table["item_id"]) != sorted(expected) or not set(table["subset"]) <= set(SUBSETS):
        raise InputError(
            f"expected each of the {len(expected)} scored frames once in {path}, got "
            f"{len(table)} others; predict again"
        )
    return table.assign(video_id=table["item_id"].str.rpartition("/")[0])


def total(table: pd.DataFrame) -> Counts:
    """The sum over frames."""
    sums = table[["tp", "fp", "fn", "tn"]].sum()
    return Counts(**{str(name): int(value) for name, value in sums.items()})
