"""The pipeline's tables, shaped so that each expectation is about one column."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from flowsight.datasets import tables
from flowsight.errors import InputError
from flowsight.progress import track

if TYPE_CHECKING:
    import pandas as pd

MISSING = -1
UNKNOWN = "unknown"
"""Source of packs made from folders of images: the video was not there."""


def clip_rows(manifest: Path) -> pd.DataFrame:
    """`clips.csv` and, as bool: known_label, safe_path, ok_status."""
    clips = tables.read(manifest / "clips.csv", tables.CLIPS)
    classes = tables.read(manifest / "classes.csv", tables.CLASSES)
    status = tables.read(manifest / "status.csv", tables.STATUS)
    return clips.assign(
        known_label=clips.label.isin(classes.label),
        safe_path=[_is_safe(path) for path in clips.path],
        ok_status=clips.clip_id.isin(status.clip_id[status.status == "ok"]),
    )


def _is_safe(path: str) -> bool:
    pure = PurePosixPath(path)
    return bool(path) and not pure.is_absolute() and ".." not in pure.parts and "\\" not in path


def status_rows(status: pd.DataFrame, clips: pd.DataFrame) -> pd.DataFrame:
    """A status table and: agrees (bool), quarantined (1 or 0; empty where absent)."""
    ok = status.status == "ok"
    said = status.reason != ""
    return status.assign(
        agrees=(ok & ~said & status.clip_id.isin(clips.clip_id)) | (~ok & said),
        quarantined=(status.status == "quarantined")
        .astype("float64")
        .where(status.status != "absent"),
    )


def official_rows(manifest: Path) -> pd.DataFrame:
    """`official_splits.csv` and has_status (bool)."""
    official = tables.read(manifest / "official_splits.csv", tables.OFFICIAL)
    status = tables.read(manifest / "status.csv", tables.STATUS)
    return official.assign(has_status=official.clip_id.isin(status.clip_id))


def merged_status(manifest: Path, stages: Sequence[Path], shards: Sequence[int]) -> pd.DataFrame:
    """Status of every clip after some stages: ok only where it is ok everywhere.

    Args:
        manifest: folder of the manifest.
        stages: folders of `<k>/status.csv`, in order; the first that is not ok decides.
        shards: the shards that count.

    Returns:
        clip_id, status, reason (with the stage's name in front), sorted; an empty status where a
        stage says nothing about a clip of its shard.
    """
    rows = _states(manifest / "status.csv")
    for stage in stages:
        said: dict[str, tuple[str, str]] = {}
        for shard in shards:
            said |= _states(stage / str(shard) / "status.csv")
        for clip_id, (state, _) in list(rows.items()):
            if state == "ok":
                state, reason = said.get(clip_id, ("", f"no status in {stage}"))
                rows[clip_id] = (state, "" if state == "ok" else f"{stage.parent.name}: {reason}")
    merged = [(clip_id, *pair) for clip_id, pair in sorted(rows.items())]
    return _frame(merged, tables.STATUS)


def _states(path: Path) -> dict[str, tuple[str, str]]:
    table = tables.read(path, tables.STATUS)
    return {clip_id: (state, reason) for clip_id, state, reason in table.to_numpy().tolist()}


def pack_rows(clips: pd.DataFrame, status: pd.DataFrame, frames: Path, flow: Path) -> pd.DataFrame:
    """What the packs of the ok clips hold.

    Returns:
        clip_id, num_frames, num_fields (by the manifest); frames, fields (members counted, -1 where
        a pack cannot be read); same_source (bool, the packs' sha256); problem (text).
    """
    ok = clips[clips.clip_id.isin(status.clip_id[status.status == "ok"])]
    rows = []
    for clip in track(ok.to_dict("records"), "checking packs"):
        name = f"{clip['shard']}/{clip['clip_id']}.zip"
        images, source, problem = _inspect(frames / name, "img_")
        fields, flow_source, flow_problem = _inspect(flow / name, "flow_x_", "flow_y_")
        wanted = clip["num_frames"]
        same = {source, flow_source} <= {clip["sha256"], UNKNOWN}
        problems = "; ".join(text for text in (problem, flow_problem) if text)
        rows.append((clip["clip_id"], wanted, wanted - 1, images, fields, same, problems))
    columns = ["clip_id", "num_frames", "num_fields", "frames", "fields", "same_source", "problem"]
    return _frame(rows, columns)


def _inspect(path: Path, *prefixes: str) -> tuple[int, str, str]:
    """(members of each prefix, sha256 of the source, problem)."""
    from flowsight.video.pack import open_pack, read_meta

    try:
        source = str(read_meta(path).get("sha256") or UNKNOWN)
        with open_pack(path) as pack:
            names = pack.namelist()
    except InputError as error:
        return MISSING, "", " ".join(str(error).split())
    counts = {sum(name.startswith(prefix) for name in names) for prefix in prefixes}
    return (counts.pop(), source, "") if len(counts) == 1 else (MISSING, source, "u without v")


def split_rows(manifest: Path, splits: Path, ids: Sequence[str]) -> pd.DataFrame:
    """All splits in one table.

    Returns:
        split_id, clip_id, subset; label and group (empty where the manifest lacks the clip);
        known_clip, as_official (bool).
    """
    import pandas as pd

    clips = tables.read(manifest / "clips.csv", ["clip_id", "label", "group"])
    official = tables.read(manifest / "official_splits.csv", tables.OFFICIAL)
    official = official.rename(columns={"subset": "side"})
    parts = [
        tables.read(splits / f"{split_id}.csv", tables.SPLIT).assign(split_id=split_id)
        for split_id in ids
    ]
    rows = pd.concat(parts, ignore_index=True)
    rows = rows.merge(clips.drop_duplicates("clip_id"), on="clip_id", how="left")
    rows = rows.merge(official, on=["clip_id", "split_id"], how="left")
    rows = rows.assign(
        known_clip=rows.label.notna(),
        as_official=rows.subset.replace("val", "train") == rows.side.fillna(""),
    )
    return rows.fillna({"label": "", "group": "", "side": ""})


def group_sides(rows: pd.DataFrame) -> pd.DataFrame:
    """split_id, group, num_subsets: on how many sides of a split a group stands."""
    counts = rows.groupby(["split_id", "group"]).subset.nunique()
    return counts.rename("num_subsets").reset_index()


def class_sides(rows: pd.DataFrame) -> pd.DataFrame:
    """split_id, label, train, val, test: clips of a class."""
    return _count(rows, ["split_id", "label"])


def sizes(manifest: Path, rows: pd.DataFrame, ids: Sequence[str]) -> pd.DataFrame:
    """split_id, train, val, test, missing_share (of the manifest's classes)."""
    classes = set(tables.read(manifest / "classes.csv", tables.CLASSES).label)
    table = _count(rows, ["split_id"]).set_index("split_id").reindex(list(ids), fill_value=0)
    missing = [
        len(classes.difference(rows.label[rows.split_id == split_id])) / max(1, len(classes))
        for split_id in ids
    ]
    return table.assign(missing_share=missing).reset_index()


def _count(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    counted = rows.groupby([*by, "subset"]).size().unstack(fill_value=0)
    return counted.reindex(columns=list(tables.SUBSETS), fill_value=0).reset_index()


def _frame(rows: Sequence[Any], columns: list[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=columns)
