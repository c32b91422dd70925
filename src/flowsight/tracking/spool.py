"""What a training logs, on disk: a file of JSON lines, from which MLflow is told.

A line is written with one call and never changed, so a kill loses nothing but a line that was half
written. Two locks, both let go of by the system when their process ends:

- of the file itself: held by the training; while it is taken, more may come.
- of `<id>.lock` beside it: held by whoever sends it.

Lines: {start}, then {metrics, step, time_ms} ..., then {end, time_ms}. The file is removed when
MLflow has all of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from flowsight.errors import InputError

SUFFIX = ".jsonl"


def now_ms() -> int:
    """The time as MLflow counts it, ms since 1970."""
    return round(time.time() * 1000)


class Spool:
    """The training's end of it."""

    def __init__(self, folder: Path, start: Mapping[str, Any]) -> None:
        """Make the file; others see it with its first line whole and its lock taken.

        Args:
            folder: made if missing.
            start: what the run is; `id` and `time_ms` are added.

        Raises:
            OSError: it cannot be written.
        """
        name = uuid.uuid4().hex
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}{SUFFIX}"
        hidden = folder / f".{name}"
        # unbuffered: a line is with the system, and outlives this process, when `write` returns
        self._file = hidden.open("ab", buffering=0)
        self._is_broken = False
        try:
            hidden.chmod(0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._write({"start": {**start, "id": name, "time_ms": now_ms()}})
            hidden.rename(self.path)
        except BaseException:
            self._file.close()
            hidden.unlink(missing_ok=True)
            raise

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Keep the metrics of a step.

        Raises:
            OSError: it cannot be written.
        """
        self._write({"metrics": dict(metrics), "step": step, "time_ms": now_ms()})

    def close(self, status: str) -> None:
        """Say how it ended; nothing more comes.

        Raises:
            OSError: it cannot be written.
        """
        try:
            self._write({"end": status, "time_ms": now_ms()})
        finally:
            # processes that were forked share the lock; closing alone would not free it
            fcntl.flock(self._file, fcntl.LOCK_UN)
            self._file.close()

    def _write(self, message: Mapping[str, Any]) -> None:
        # after a line that came to a full disk, the next one starts on its own
        line = (b"\n" if self._is_broken else b"") + json.dumps(message).encode() + b"\n"
        self._is_broken = True
        if self._file.write(line) != len(line):
            raise OSError(f"no space left for {self.path}")
        self._is_broken = False


class Lines:
    """The sender's end: whole lines, as they come."""

    def __init__(self, path: Path) -> None:
        """Open it and read its first line.

        Raises:
            OSError: it is gone, or cannot be read.
            InputError: it is no spool.
        """
        self.path = path
        self.lost = 0
        """Lines that nobody can read."""
        self._file: IO[bytes] = path.open("rb")
        first = _parse(self._file.readline())
        if first is None or not {"id", "uri", "name"} <= set(first.get("start") or {}):
            raise InputError(f"expected a spool of tracking in {path}, its first line is none")
        self.start: dict[str, Any] = first["start"]

    def read(self) -> list[dict[str, Any]]:
        """What has been written since; half a line waits for its other half."""
        at = self._file.tell()
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._file.seek(at + len(whole))
        found = [_parse(line) for line in whole.splitlines()]
        self.lost += found.count(None)
        return [message for message in found if message is not None]

    @property
    def has_rest(self) -> bool:
        """Whether half a line stands at the end."""
        return os.fstat(self._file.fileno()).st_size > self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def is_written(path: Path) -> bool:
    """Whether a living process may still write to a spool."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Be the only one who sends a spool; False: somebody else is, or did."""
    beside = path.with_suffix(".lock")
    with beside.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield path.exists()
        finally:
            if not path.exists():  # who opened it before finds no spool any more
                beside.unlink(missing_ok=True)


def waiting(folder: Path) -> list[Path]:
    """Spools of a folder, the oldest first."""
    found = []
    for path in folder.glob(f"*{SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):  # sent in this moment
            found.append((path.stat().st_mtime, path))
    return [path for _, path in sorted(found)]
