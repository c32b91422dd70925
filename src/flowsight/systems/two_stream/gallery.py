"""Which test clips are drawn with their attention maps, and the pictures with their index."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from flowsight.contract import Folders
from flowsight.evaluation import figures, overlays
from flowsight.evaluation.predictions import read_table, records
from flowsight.files import write_csv
from flowsight.params.config import Params
from flowsight.progress import track
from flowsight.systems.two_stream.params import SYSTEM, FusionParams

COLUMNS = ("picture", "clip_id", "split_id", "frame", "label", "predicted", "prob")


def write_overlays(
    fusions: Mapping[str, FusionParams],
    params: Params,
    folders: Folders,
    joined: pd.DataFrame,
    out: Path,
) -> None:
    """Pictures of the headline, else of the last fusion that uses maps: first split's test clips.

    Args:
        fusions: the system's fusions, in order.
        params: all parameters.
        folders: where packs and maps lie.
        joined: predictions as `scoring.joined_predictions` gives them.
        out: folder for the PNG files and `index.csv` (`COLUMNS`); the index is empty where no
            fusion uses maps.
    """
    attended = [n for n, pair in fusions.items() if all(_maps(pair, params))]
    attended.sort(key=lambda name: name == params.system(SYSTEM).evaluate.headline)
    index = (
        _draw(attended[-1], fusions[attended[-1]], params, folders, joined, out) if attended else []
    )
    write_csv(pd.DataFrame(index, columns=list(COLUMNS)), out / "index.csv")


def _maps(pair: FusionParams, params: Params) -> tuple[str | None, str | None]:
    """Rows whose maps the spatial (T) and the temporal stream (S) see."""
    return params.row(pair.spatial).start.maps, params.row(pair.temporal).start.maps


def _draw(
    name: str,
    pair: FusionParams,
    params: Params,
    folders: Folders,
    joined: pd.DataFrame,
    out: Path,
) -> list[dict[str, object]]:
    split_id = params.splits.ids[0]
    own = joined[(joined["fusion"] == name) & (joined["split_id"] == split_id)]
    own = own[(own["stream"] == "fused") & (own["subset"] == "test")]
    by_clip = {row["clip_id"]: row for row in records(own[["clip_id", *COLUMNS[4:]]])}
    labels = [row["label"] for row in by_clip.values()]
    chosen = overlays.choose_clips(
        list(by_clip), labels, params.system(SYSTEM).evaluate.num_overlays
    )
    clips = read_table(folders["manifest"] / "clips.csv", ("clip_id", "shard"))
    shards = dict(zip(clips["clip_id"], clips["shard"], strict=True))
    temporal_maps, spatial_maps = _maps(pair, params)
    index: list[dict[str, object]] = []
    for clip in track(chosen, "overlays"):
        panels = overlays.read_panels(
            overlays.clip_pack(folders["frames"], shards, clip),
            overlays.clip_pack(folders["flow"], shards, clip),
            folders["attention"] / f"{spatial_maps}-{split_id}" / f"{clip}.zip",
            folders["attention"] / f"{temporal_maps}-{split_id}" / f"{clip}.zip",
        )
        label, predicted = str(by_clip[clip]["label"]), str(by_clip[clip]["predicted"])
        prob, picture = float(by_clip[clip]["prob"]), f"{clip.replace('/', '__')}.png"
        figures.overlay_figure(
            panels, label=label, predicted=predicted, prob=prob, path=out / picture
        )
        values = (picture, clip, split_id, panels.frame_index, label, predicted, round(prob, 6))
        index.append(dict(zip(COLUMNS, values, strict=True)))
    return index
