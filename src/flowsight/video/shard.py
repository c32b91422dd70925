"""A shard's clips, worked through in parallel: one result file per clip, and a status table."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

import cv2
import pandas as pd

from flowsight import files, progress
from flowsight.errors import InputError, ResourceError
from flowsight.video.decode import UnreadableVideo

Item = TypeVar("Item")
Watch = Callable[[Iterable[Item]], Iterator[Item]]
"""Goes through decoded frames: shows progress, or stops early."""

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class ShardClip:
    """One row of a shard's `clips.csv`."""

    clip_id: str
    video: Path
    sha256: str


class _StoppedError(Exception):
    """Another clip's failure ended the run."""


def work_through(
    shard_dir: Path, out: Path, work: Callable[[ShardClip, Path, Watch], None], what: str
) -> None:
    """Make `<out>/<clip_id>.zip` for each clip of a shard, and `<out>/status.csv`.

    Args:
        shard_dir: `clips.csv` (clip_id, path, sha256) and `videos/<path>`.
        out: replaced when all clips are through.
        work: makes one clip's pack from (clip, target, watch); `UnreadableVideo` quarantines.
        what: a word for the progress line.

    Raises:
        InputError: the shard folder is not one.
        ResourceError: no space left; `out` is as it was.
    """
    clips = read_shard(shard_dir)
    stop = threading.Event()

    def watch(frames: Iterable[Item]) -> Iterator[Item]:
        for frame in frames:
            if stop.is_set():
                raise _StoppedError
            yield frame

    with naming_full_disk(out), files.atomic_dir(out) as folder:

        def job(clip: ShardClip) -> str:
            return _reason(lambda: work(clip, folder / f"{clip.clip_id}.zip", watch), clip)

        with one_opencv_thread():
            reasons = _in_parallel(job, clips, f"{what} {shard_dir.name}", stop)
        files.write_csv(_status(clips, reasons), folder / "status.csv")


def _reason(pack_clip: Callable[[], None], clip: ShardClip) -> str:
    """Pack one clip; why it failed, or nothing."""
    try:
        if not clip.video.is_file():
            return "missing file"
        if clip.sha256 and files.sha256(clip.video) != clip.sha256:
            return "checksum differs from clips.csv"
        pack_clip()
    except UnreadableVideo as error:
        return error.reason
    except cv2.error as error:
        return f"OpenCV: {error.err}"
    return ""


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
    columns = zip(rows["clip_id"], rows["path"], rows["sha256"], strict=True)
    return [ShardClip(clip_id, shard_dir / "videos" / path, sha) for clip_id, path, sha in columns]


def check_relative(name: str, where: Path) -> None:
    """Raise InputError unless a name stays below the folder it is joined to."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise InputError(f"expected a relative path without '..', got {name!r} in {where}")


def _in_parallel(
    job: Callable[[ShardClip], str],
    clips: Sequence[ShardClip],
    description: str,
    stop: threading.Event,
) -> list[str]:
    """Run a job per clip in threads (OpenCV releases the GIL); results in the clips' order.

    Args:
        job: what to do with a clip.
        clips: in the order of the results.
        description: for the progress line.
        stop: set when a job raises or the user interrupts, so that the others end soon.
    """
    pool = ThreadPoolExecutor(num_workers())
    try:
        futures = [pool.submit(job, clip) for clip in clips]
        for done in progress.track(as_completed(futures), description, total=len(futures)):
            done.result()
        return [future.result() for future in futures]
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def num_workers() -> int:
    """Clips worked on at once: `FLOWSIGHT_WORKERS`, or one per CPU this process may use.

    Raises:
        InputError: the variable is not a whole number above 0.
    """
    text = os.environ.get("FLOWSIGHT_WORKERS", "")
    if text:
        if not text.isdecimal() or int(text) < 1:
            raise InputError(f"expected FLOWSIGHT_WORKERS as a whole number > 0, got {text!r}")
        return int(text)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Keep OpenCV to one thread per call while clips run in parallel."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


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
