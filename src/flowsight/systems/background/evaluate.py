"""The evaluation of background subtraction: networks and OpenCV's methods on the same frames.

Each method is scored on each video's *second half* of the truth, which no network has seen, and
apart on *all* scored frames. A network *saw* a video if its first half trained it; on the others it
shows what happens on unseen scenes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from flowsight.contract import Folders
from flowsight.datasets.scenes import videos as background
from flowsight.datasets.scenes.videos import Video
from flowsight.evaluation.predictions import records
from flowsight.files import atomic_dir, write_csv, write_json
from flowsight.metrics.change_detection import Counts
from flowsight.params.config import Params
from flowsight.systems.background import counts as scene_counts
from flowsight.systems.background import figures
from flowsight.systems.background import paper as background_paper
from flowsight.systems.background.params import SYSTEM

MEASURES = ("f_measure", "recall", "precision")
_DECIMALS = 6


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What a method found in all videos."""

    method: str
    """A row, or a method of OpenCV."""
    split_id: str
    """Of a row; empty for OpenCV's methods, which learn nothing beforehand."""
    folder: Path
    """Counts and masks."""
    counts: pd.DataFrame
    """See `systems.background.counts.read`."""

    def saw(self, video: Video) -> bool:
        """Whether the first half of the video trained it."""
        own = self.counts[self.counts["video_id"] == video.video_id]
        return bool((own["subset"] != "unseen").all())


def evaluate(params: Params, folders: Folders, out: Path) -> None:
    """Write `results/background`: metrics.json, tables and pictures.

    Args:
        params: all parameters; `scenes` is read.
        folders: `scenes`, those of the videos; `predictions`, of `<row>-<split>` as `predict`
            writes them; `peers`, of a folder for each of OpenCV's methods.
        out: folder to replace.

    Raises:
        InputError: predictions that are missing or do not fit the videos.
    """
    block = params.system(SYSTEM)
    videos = background.open_videos(folders["scenes"], params.scenes.videos)
    predictions = folders["predictions"]
    places = [
        (row, s, predictions / f"{row}-{s}") for row in block.rows for s in params.scenes.splits
    ]
    places += [(name, "", folders["peers"] / name) for name in block.peers]
    found = [
        Found(method=m, split_id=s, folder=folder, counts=scene_counts.read(folder, videos))
        for m, s, folder in places
    ]
    table = video_table(found, videos)
    metrics = flat_metrics(table, list(block.rows))
    best = best_peers(table, block.peers)
    with atomic_dir(out) as folder:
        write_json({k: round(v, _DECIMALS) for k, v in metrics.items()}, folder / "metrics.json")
        write_csv(table.round(_DECIMALS), folder / "per_video.csv")
        paper = background_paper.paper_table(table, params)
        write_csv(paper, folder / "paper_table.csv")
        shown = [(video, _shown(found, video, best)) for video in videos]
        figures.write(shown, block.evaluate.num_pictures, folder / "pictures")


def video_table(found: Sequence[Found], videos: Sequence[Video]) -> pd.DataFrame:
    """Every method on every video.

    Returns:
        Columns method, split_id, video_id, seen (did the video's first half train it), part
        (`second_half`, `all`), f_measure, recall, precision, tp, fp, fn, tn.
    """
    return pd.DataFrame([row for f in found for video in videos for row in _parts(f, video)])


def _parts(found: Found, video: Video) -> Iterator[dict[str, object]]:
    own = found.counts[found.counts["video_id"] == video.video_id]
    second = {video.item_id(index) for index in video.halves()[1]}
    for part, frames in (("second_half", own[own["item_id"].isin(second)]), ("all", own)):
        counts: Counts = scene_counts.total(frames)
        yield {
            "method": found.method,
            "split_id": found.split_id,
            "video_id": video.video_id,
            "seen": found.saw(video),
            "part": part,
            **{name: getattr(counts, name) for name in MEASURES},
            **vars(counts),
        }


def short_name(video_id: str) -> str:
    """`highway` of `baseline/highway`, as tables print it."""
    return video_id.rpartition("/")[2]


def flat_metrics(table: pd.DataFrame, rows: Sequence[str]) -> dict[str, float]:
    """Flat names: `<method>/<video>/<measure>` on the second half, and `<method>/f_measure`, the
    mean over videos; `_all` on all scored frames; `unseen_` where a network did not see the video.

    A measure without a value (nothing found) is left out.
    """
    metrics: dict[str, float] = {}
    for method, own in table.groupby("method", sort=False):
        kinds = {"": own[own["seen"]], "unseen_": own[~own["seen"]]}
        if method not in rows:
            kinds = {"": own}
        for prefix, part in kinds.items():
            for ending, name in (("", "second_half"), ("_all", "all")):
                metrics |= _means(f"{method}", prefix, ending, part[part["part"] == name])
    return {name: value for name, value in metrics.items() if np.isfinite(value)}


def _means(method: str, prefix: str, ending: str, table: pd.DataFrame) -> dict[str, float]:
    if table.empty:
        return {}
    videos = table.groupby("video_id", sort=False)[list(MEASURES)].mean()
    metrics = {
        f"{method}/{short_name(str(video))}/{prefix}{name}{ending}": float(row[name])
        for video, row in videos.iterrows()
        for name in MEASURES
    }
    return metrics | {f"{method}/{prefix}f_measure{ending}": float(videos["f_measure"].mean())}


def best_peers(table: pd.DataFrame, peers: Sequence[str]) -> dict[str, str]:
    """For each video the method of OpenCV with the highest F-measure on the second half."""
    own = table[table["method"].isin(peers) & (table["part"] == "second_half")]
    ordered = own.sort_values(["video_id", "f_measure", "method"], ascending=[True, False, True])
    return {
        str(r["video_id"]): str(r["method"]) for r in records(ordered.groupby("video_id").head(1))
    }


def _shown(found: Sequence[Found], video: Video, best: dict[str, str]) -> dict[str, Path]:
    """Label -> folder of the methods whose masks are shown for a video."""
    shown: dict[str, Path] = {}
    for f in found:
        if f.split_id and f.saw(video):
            shown.setdefault(f.method, f.folder)
    for f in found:
        if f.split_id and not f.saw(video):
            shown.setdefault(f"{f.method}, scene unseen", f.folder)
    name = best.get(video.video_id)
    return shown | {f.method: f.folder for f in found if f.method == name}
