"""Packs and tables that the benchmarks of training read, made as the stages make them.

    python benchmarks/training_data.py FOLDER [--clips 16] [--classes 4] [--size 340 256]

A folder made so looks like a repository that has run up to its splits (`benchmarks/gradcam.py
--root FOLDER`); one that is there is read, not made anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
from functools import partial
from pathlib import Path

import pandas as pd

from flowsight.datasets.clips import flow as flow_packing
from flowsight.datasets.clips import frames as packing
from flowsight.params import config
from flowsight.samples import rendering
from flowsight.video import pack, workers

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("FLOWSIGHT_SHARED", ROOT.parent / "shared")) / "data"
SIZE = (340, 256)
"""Of stored frames, px: those of TSN."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Packs and tables of some clips; every clip is for training."""

    source: str
    """`ucf101` or `sample`."""
    size: tuple[int, int]
    clips: int
    labels: list[str]
    manifest: Path
    split: Path
    packs: dict[str, Path]
    """Modality -> folder."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    add_options(parser)
    args = parser.parse_args()
    print(make(args.folder, args.clips, tuple(args.size), args.classes))


def add_options(parser: argparse.ArgumentParser) -> None:
    """What to make, as every benchmark over it asks."""
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--classes", type=int, help="the largest so many; default all")
    parser.add_argument("--size", type=int, nargs=2, default=SIZE, help="of stored frames")


def make(folder: Path, count: int, size: tuple[int, int], classes: int | None = None) -> Data:
    """JPEG packs of some videos with their own labels."""
    name = config.load(ROOT / "params.yaml").dataset.name
    known = folder / "data.json"
    if known.is_file():
        return _described(folder, name, **json.loads(known.read_text()))
    folder.mkdir(parents=True, exist_ok=True)
    source, videos = find_videos(folder, count, classes)
    job = partial(_pack, folder=folder / "data", name=name, size=size)
    # each in a process of its own: a loader that forks must find no threads of OpenCV's here
    lengths = workers.run(job, videos, workers=len(os.sched_getaffinity(0)))
    rows = [
        (_clip_id(video), video.parent.name, int(length), 0, "train")
        for video, length in zip(videos, lengths, strict=True)
    ]
    table = pd.DataFrame(rows, columns=["clip_id", "label", "num_frames", "shard", "subset"])
    labels = sorted(set(table["label"]))
    described = {"source": source, "size": list(size), "clips": len(videos), "labels": labels}
    data = _described(folder, name, **described)
    for path in (data.manifest, data.split.parent):
        path.mkdir(parents=True, exist_ok=True)
    table.to_csv(data.manifest / "clips.csv", index=False)
    index = pd.DataFrame({"index": range(len(labels)), "label": labels})
    index.to_csv(data.manifest / "classes.csv", index=False)
    table[["clip_id", "subset"]].to_csv(data.split, index=False)
    shutil.copy(ROOT / "params.yaml", folder)
    known.write_text(json.dumps(described))
    return data


def _described(
    folder: Path, name: str, *, source: str, size: list[int], clips: int, labels: list[str]
) -> Data:
    split = config.load(ROOT / "params.yaml").splits.ids[0]
    return Data(
        source=source,
        size=(size[0], size[1]),
        clips=clips,
        labels=labels,
        manifest=folder / "data/manifests" / name,
        split=folder / "data/splits" / name / f"{split}.csv",
        packs={"rgb": folder / "data/frames" / name, "flow": folder / "data/flow" / name},
    )


def _clip_id(video: Path) -> str:
    return f"{video.parent.name}/{video.stem}"


def _pack(video: Path, *, folder: Path, name: str, size: tuple[int, int]) -> str:
    """Frames and flow of one video; returns its number of frames."""
    clip_id = _clip_id(video)
    frames, flow = (folder / kind / name / "0" / f"{clip_id}.zip" for kind in ("frames", "flow"))
    packing.frames_of_video(video, frames, clip_id=clip_id, size=size, quality=95)
    # the fastest method: what is measured is how its JPEGs are read
    flow_packing.flow_of_video(video, flow, method="dis", size=size, quality=95)
    return str(pack.num_frames(frames))


def find_videos(folder: Path, count: int, classes: int | None) -> tuple[str, list[Path]]:
    """Real clips, evenly chosen, or those of the generated sample."""
    found, source = sorted((SHARED / "ucf101/videos").glob("*/*.avi")), "ucf101"
    if not found:
        settings = dataclasses.asdict(config.load(ROOT / "params.yaml").sample)
        kinds = ("sample", "scenes", "images", "faces")
        rendering.render(*(folder / kind for kind in kinds), **settings)
        found, source = sorted((folder / "sample").rglob("*.avi")), "sample"
    names = [video.parent.name for video in found]
    largest = sorted(set(names), key=lambda name: (-names.count(name), name))[:classes]
    found = [video for video in found if video.parent.name in largest]
    return source, found[:: max(1, len(found) // count)][:count]


if __name__ == "__main__":
    main()
