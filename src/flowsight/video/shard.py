"""A shard's clips, worked through in parallel: one pack per clip, and a status table."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import cv2
import pandas as pd

from flowsight import files, progress
from flowsight.errors import InputError, ResourceError
from flowsight.video import pack, workers
from flowsight.video.decode import UnreadableVideo

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class ShardClip:
    """One row of a shard's `clips.csv`."""

    clip_id: str
    video: Path
    sha256: str
    num_frames: int = 0
    """As the manifest says; 0 where it does not."""


PackClip = Callable[[ShardClip, Path, int], None]
"""Makes one clip's pack: (clip, target, threads it may use); `UnreadableVideo` quarantines it."""


def work_through(
    shard_dir: Path, out: Path, pack_clip: PackClip, what: str, *, keep: Path | None = None
) -> None:
    """Make `<out>/<clip_id>.zip` for each clip of a shard, and `<out>/status.csv`.

    Args:
        shard_dir: `clips.csv` (clip_id, path, sha256) and `videos/<path>`.
        out: replaced when all clips are through.
        pack_clip: a function that other processes can import, or a partial of one.
        what: a word for the progress line.
        keep: a folder for the packs that are done, so that a killed run goes on at the first
            unfinished clip; it must stand for exactly these clips and settings, and is removed
            in the end. None: nothing is kept.

    Raises:
        InputError: the shard folder is not one.
        ResourceError: no space left, or a worker was killed; `out` is as it was.
    """
    clips = read_shard(shard_dir)
    num = min(workers.num_workers(), max(1, len(clips)))
    # fewer clips than cores: the cores share a clip
    threads = max(1, workers.num_workers() // num)
    total = sum(clip.num_frames for clip in clips)
    with naming_full_disk(out), _kept_until_done(out, keep) as folder:
        job = partial(_pack_one, pack_clip=pack_clip, folder=folder, threads=threads)
        title = f"{what} {shard_dir.name}"
        with workers.one_opencv_thread(), progress.meter(title, total or None, "frames") as update:
            reasons = workers.run(job, clips, workers=num, update=update)
        files.write_csv(_status(clips, reasons), folder / "status.csv")


@contextmanager
def _kept_until_done(out: Path, keep: Path | None) -> Iterator[Path]:
    """Where packs are made; then they stand in `out`."""
    if keep is None:
        with files.atomic_dir(out) as folder:
            yield folder
        return
    keep.mkdir(parents=True, exist_ok=True)
    yield keep
    with files.atomic_dir(out) as folder:
        for file in sorted(keep.rglob("[!.]*")):
            if file.is_file():
                target = folder / file.relative_to(keep)
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(file, target)
    shutil.rmtree(keep, ignore_errors=True)


def _link(file: Path, target: Path) -> None:
    try:
        target.hardlink_to(file)
    except OSError:  # another file system
        shutil.copyfile(file, target)


def _pack_one(clip: ShardClip, *, pack_clip: PackClip, folder: Path, threads: int) -> str:
    """Pack one clip; why it failed, or nothing."""
    target = folder / f"{clip.clip_id}.zip"
    try:
        if not clip.video.is_file():
            return "missing file"
        if _is_done(target):
            list(workers.counted([None], size=clip.num_frames))
            return ""
        if clip.sha256 and files.sha256(clip.video) != clip.sha256:
            return "checksum differs from clips.csv"
        pack_clip(clip, target, threads)
    except UnreadableVideo as error:
        return error.reason
    except cv2.error as error:
        return f"OpenCV: {error.err}"
    return ""


def _is_done(target: Path) -> bool:
    """Whether an earlier run has made the whole pack (one cut off by a power failure is not)."""
    if not target.exists():
        return False
    try:
        pack.read_meta(target)
    except InputError:
        return False
    return True


def _status(clips: Sequence[ShardClip], reasons: Sequence[str]) -> pd.DataFrame:
    rows = {
        "clip_id": [clip.clip_id for clip in clips],
        "status": ["quarantined" if reason else "ok" for reason in reasons],
        "reason": list(reasons),
    }
    return pd.DataFrame(rows, dtype=str)


def read_shard(shard_dir: Path) -> list[ShardClip]:
    """Clips of a shard, sorted by clip_id.

    Raises:
        InputError: no `clips.csv`, a column that lacks, a clip_id that repeats, or a name that
            leads out of the folder.
    """
    table = shard_dir / "clips.csv"
    if not table.is_file():
        raise InputError(f"expected a shard's table at {table}, found none; run stage manifest")
    # labels such as "null" or "NA" are names, not gaps
    try:
        rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"expected a table in {table}, got: {error}") from None
    for column in ("clip_id", "path", "sha256"):
        if column not in rows:
            raise InputError(
                f"expected a column {column} in {table}, got {', '.join(rows.columns)}"
            )
    if rows["clip_id"].duplicated().any():
        twice = rows.loc[rows["clip_id"].duplicated(), "clip_id"].iloc[0]
        raise InputError(f"expected each clip_id once in {table}, got {twice!r} again")
    for name in (*rows["clip_id"], *rows["path"]):
        check_relative(name, table)
    rows = rows.sort_values("clip_id")
    counts = pd.to_numeric(rows.get("num_frames", pd.Series(0, rows.index)), errors="coerce")
    rows["num_frames"] = counts.fillna(0).clip(lower=0).astype(int)
    names = ["clip_id", "path", "sha256", "num_frames"]
    return [
        ShardClip(clip_id, shard_dir / "videos" / path, sha, count)
        for clip_id, path, sha, count in rows[names].itertuples(index=False)
    ]


def check_relative(name: str, where: Path) -> None:
    """Raise InputError unless a name stays below the folder it is joined to."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise InputError(f"expected a relative path without '..', got {name!r} in {where}")


@contextmanager
def naming_full_disk(out: Path) -> Iterator[None]:
    """Turn a full disk (or quota, or file size limit) into a ResourceError that names `out`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise ResourceError(
            f"no space left while writing {out}; free some space and run again"
        ) from None
