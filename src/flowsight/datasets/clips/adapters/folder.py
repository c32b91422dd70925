"""Any folder `<class>/<clip>.avi` (or `videos/<class>/<clip>.avi`), with seeded splits.

A clip is its own group unless `groups.csv` (clip_id, group) beside the class folders says which
clips belong together (same person, same recording). Splits `1`, `2` and `3` are three seeds of a
70:30 cut by groups; a clip's place hangs on its group's name only, so new clips move few others.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flowsight.datasets import tables
from flowsight.datasets.grouping import choose_groups
from flowsight.datasets.layout import FOUND_COLUMNS, class_folders, scan, split_table
from flowsight.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

SPLIT_IDS = ("1", "2", "3")
TEST_SHARE = 0.3
NO_CLASSES = {"truth"}


def _folders(raw: Path) -> list[Path]:
    videos = raw / "videos"
    if videos.is_dir():
        return class_folders(videos)
    return [folder for folder in class_folders(raw) if folder.name not in NO_CLASSES]


def classes(raw: Path) -> list[str]:
    """Names of the class folders, sorted."""
    return [folder.name for folder in _folders(raw)]


def find_clips(raw: Path) -> pd.DataFrame:
    """All videos: clip_id, label, group (from `groups.csv`, else the clip itself), path.

    Raises:
        InputError: no class folder, or `groups.csv` leaves out a clip or names one twice.
    """
    folders = _folders(raw)
    if not folders:
        raise InputError(f"expected folders <class>/<clip>.avi in {raw}, found no folder")
    found = scan(raw, folders)
    found["group"] = found.clip_id
    path = raw / "groups.csv"
    if path.is_file():
        groups = tables.read(path, ["clip_id", "group"])
        if groups.clip_id.duplicated().any():
            name = groups.clip_id[groups.clip_id.duplicated()].iloc[0]
            raise InputError(f"expected every clip once in {path}, found {name!r} twice")
        found["group"] = found.clip_id.map(groups.set_index("clip_id").group)
        if found.group.isna().any():
            name = found.clip_id[found.group.isna()].iloc[0]
            raise InputError(f"expected a group for every clip in {path}, found none for {name!r}")
    return found[FOUND_COLUMNS]


def official_splits(raw: Path, clips: pd.DataFrame) -> pd.DataFrame:
    """Three seeded cuts: clip_id, split_id, subset.

    Args:
        raw: not needed.
        clips: what `find_clips` returned.
    """
    labels, groups = clips.label.tolist(), clips.group.tolist()
    test = {k: choose_groups(labels, groups, share=TEST_SHARE, key=f"test/{k}") for k in SPLIT_IDS}
    return split_table(
        (clip_id, split_id, "test" if group in test[split_id] else "train")
        for split_id in SPLIT_IDS
        for clip_id, group in zip(clips.clip_id, groups, strict=True)
    )
