"""Pictures like the paper's figure 6: the true region in blue, the attention's region in red."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from flowsight.classifiers.localization import read_masks, read_truth_index
from flowsight.contract import Folders
from flowsight.evaluation import figures
from flowsight.evaluation.overlays import choose_clips, clip_pack
from flowsight.evaluation.predictions import read_table, records
from flowsight.files import write_csv
from flowsight.metrics import localization as measures
from flowsight.params.config import Params
from flowsight.progress import track
from flowsight.systems.residual3d.params import SYSTEM
from flowsight.video import pack

COLUMNS = ("picture", "clip_id", "frame", "label", "predicted", "iou", "pointing_game")
HEIGHT_PX = 240
THRESHOLD = 0.5
"""The attention's region is where the map reaches this share of its maximum, as for the IoU."""
TRUE_BLUE, ATTENTION_RED = (40, 110, 255), (235, 50, 45)

Image = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Region:
    """A frame, its outlines and how well they agree."""

    frame_index: int
    picture: Image
    """(H, W, 3) uint8 RGB."""
    iou: float | None
    """None where the truth has no mask."""
    pointing_game: float | None


def write_regions(row: str | None, params: Params, folders: Folders, joined: pd.DataFrame,
                  out: Path) -> None:  # fmt: skip
    """Pictures of test clips of the first split, the first of each class by name.

    Args:
        row: whose maps are drawn; None: no picture.
        params: all parameters.
        folders: where packs, maps and masks lie.
        joined: predictions with row, split_id, clip_id, subset, label and predicted.
        out: folder for the PNG files and `index.csv` (`COLUMNS`).
    """
    index = [] if row is None else _draw(row, params, folders, joined, out)
    write_csv(pd.DataFrame(index, columns=list(COLUMNS)), out / "index.csv")


def _draw(
    row: str, params: Params, folders: Folders, joined: pd.DataFrame, out: Path
) -> list[dict[str, object]]:
    split_id = params.splits.ids[0]
    own = joined[(joined["row"] == row) & (joined["split_id"] == split_id)]
    own = own[own["subset"] == "test"]
    by_clip = {r["clip_id"]: r for r in records(own[["clip_id", "label", "predicted"]])}
    labels = [r["label"] for r in by_clip.values()]
    clips = read_table(folders["manifest"] / "clips.csv", ("clip_id", "shard"))
    shards = dict(zip(clips["clip_id"], clips["shard"], strict=True))
    truth = read_truth_index(folders["truth"])
    index: list[dict[str, object]] = []
    for clip in track(
        choose_clips(list(by_clip), labels, params.system(SYSTEM).evaluate.num_overlays), "regions"
    ):
        region = outline(
            clip_pack(folders["frames"], shards, clip),
            folders["attention"] / f"{row}-{split_id}" / f"{clip}.zip",
            read_masks(truth[clip]) if clip in truth else None,
        )
        picture, named = f"{clip.replace('/', '__')}.png", by_clip[clip]
        right = named["label"] == named["predicted"]
        figures.region_figure(
            region.picture,
            heading=f"{named['label']} {'✓' if right else '✗ ' + named['predicted']}",
            agreement=_agreement(region),
            path=out / picture,
        )
        values = (picture, clip, region.frame_index, named["label"], named["predicted"],
                  region.iou, region.pointing_game)  # fmt: skip
        index.append(dict(zip(COLUMNS, values, strict=True)))
    return index


def _agreement(region: Region) -> str:
    if region.iou is None or region.pointing_game is None:
        return "no true region"
    hit = "hit" if region.pointing_game >= 0.5 else "missed"
    return f"IoU {region.iou:.2f}, {hit}"


def outline(frames: Path, maps: Path, masks: npt.NDArray[np.bool_] | None) -> Region:
    """The middle one of the frames that show the actor, with both regions outlined.

    Args:
        frames: the clip's pack of frames.
        maps: its attention maps.
        masks: (T, H, W) true masks; None: only the attention is drawn, on the middle frame.

    Raises:
        InputError: a pack is missing or broken.
    """
    count = pack.num_frames(frames)
    if masks is not None:
        count = min(count, len(masks))
    shown = np.arange(count) if masks is None else np.flatnonzero(masks[:count].any(axis=(1, 2)))
    index = int(shown[len(shown) // 2]) if len(shown) else count // 2
    frame = pack.read_frames(frames, [index])[0]
    size = (round(HEIGHT_PX * frame.shape[1] / frame.shape[0]), HEIGHT_PX)
    picture = cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC)
    attention = pack.read_maps(maps, [index])[0].astype(np.float32) / 255
    large = cv2.resize(attention, size, interpolation=cv2.INTER_LINEAR)
    overlap, hit = None, None
    if masks is not None and len(shown):
        mask = masks[index]
        at_mask = cv2.resize(attention, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
        overlap = round(float(measures.iou(at_mask, mask, threshold=THRESHOLD)), 6)
        hit = round(float(measures.pointing_game(at_mask, mask)), 6)
        scaled = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        _contour(picture, scaled, TRUE_BLUE)
    peak = float(large.max())
    if peak > 0:
        _contour(picture, (large >= THRESHOLD * peak).astype(np.uint8), ATTENTION_RED)
    return Region(frame_index=index, picture=picture, iou=overlap, pointing_game=hit)


def _contour(picture: Image, mask: Image, colour: tuple[int, int, int]) -> None:
    lines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, lines, -1, colour, 2, cv2.LINE_AA)
