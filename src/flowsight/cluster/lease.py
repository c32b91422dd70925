"""Only one works on a stage of a run: a file lock within a workplace, a heartbeat beyond it.

Within a workplace (all who share FLOWSIGHT_WORK) the lock is `flock`: it falls when its holder
dies. Beyond it a lease lies in FLOWSIGHT_RUNS, which may be an object store without locks: the
holder rewrites it every few seconds. One whose beat stands still for `FLOWSIGHT_LEASE_SEC` (60 s
by the waiter's own clock; clocks of hosts are never compared) belongs to a dead worker and is
taken over. Where two take over in the same moment, the one whose name stays in it after a short
wait has it. Should both ever compute, nothing is lost but time: objects are stored under the hash
of their content, and a fragment appears whole.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flowsight.cluster import fragments
from flowsight.cluster.workplace import Workplace
from flowsight.errors import InputError, ResourceError

_SETTLE_SEC = 1.0


def timeout_sec() -> float:
    """After how many seconds without a beat a worker counts as dead.

    Raises:
        InputError: `FLOWSIGHT_LEASE_SEC` is no number of at least 1.
    """
    text = os.environ.get("FLOWSIGHT_LEASE_SEC", "60")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds >= 1:
        raise InputError(f"expected FLOWSIGHT_LEASE_SEC as a number from 1, got {text!r}")
    return seconds


@contextmanager
def held(
    place: Workplace, run_id: str, stage: str, *, is_done: Callable[[], bool]
) -> Iterator[bool]:
    """Hold a stage of a run while the block works; wait for whoever has it.

    Args:
        place: the worker's places.
        run_id: a checked run id.
        stage: name.
        is_done: asked while waiting; once true there is nothing left to hold.

    Yields:
        True if held, False if the stage was done by somebody else meanwhile.
    """
    with _file_lock(place, f"{run_id}/{stage}", is_done) as mine:
        if not mine or is_done():
            yield False
            return
        beat = _Beat(place, run_id, stage)
        if not beat.acquire(is_done):
            yield False
            return
        try:
            yield not is_done()  # its last holder may have finished just now
        finally:
            beat.release()


@contextmanager
def _file_lock(place: Workplace, name: str, is_done: Callable[[], bool]) -> Iterator[bool]:
    path = place.locks / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        said = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not said:
                    print(f"{name}: another worker here is at it; waiting", file=sys.stderr)
                said = True
                if is_done():
                    yield False
                    return
                time.sleep(0.5)
        yield True


class _Beat:
    """The lease in the common store."""

    def __init__(self, place: Workplace, run_id: str, stage: str) -> None:
        self._store = fragments.store(place)
        self._name, self._stage = f"{run_id}/{stage}.lease", stage
        self._workplace, self._holder = place.identity(), uuid.uuid4().hex
        self._count, self._over = 0, threading.Event()
        self._thread: threading.Thread | None = None
        self._timeout = timeout_sec()

    def acquire(self, is_done: Callable[[], bool]) -> bool:
        """Wait until the lease is ours or the stage is done; start to beat."""
        seen: Any = None
        since, said = time.monotonic(), False
        while True:
            content = self._read()
            if content != seen:
                seen, since = content, time.monotonic()
            stale = time.monotonic() - since > self._timeout
            # we hold the lock of this workplace, so a holder from here is dead
            if content is None or content["workplace"] == self._workplace or stale:
                if self._take(over=content is not None):
                    return True
                continue
            if not said:
                print(f"{self._stage}: another host is at it; waiting", file=sys.stderr)
                said = True
            if is_done():
                return False
            time.sleep(min(2.0, self._timeout / 4))

    def _take(self, *, over: bool) -> bool:
        if over:
            print(f"{self._stage}: taking over from a lost worker", file=sys.stderr)
            self._write()
        elif not self._store.create(self._name, self._text()):
            time.sleep(0.1)  # somebody was faster, or is just writing
            return False
        if over or self._store.is_remote:  # the last to write has it
            time.sleep(min(_SETTLE_SEC, self._timeout / 4))
            content = self._read()
            if content is None or content["holder"] != self._holder:
                return False
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()
        return True

    def _keep(self) -> None:
        while not self._over.wait(self._timeout / 5):
            self._count += 1
            try:
                self._write()
            except ResourceError as error:  # the next beat may come through
                print(f"warning: {error}", file=sys.stderr)

    def release(self) -> None:
        """Stop beating and let go."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        try:
            content = self._read()
            if content is not None and content["holder"] == self._holder:
                self._store.remove(self._name)
        except ResourceError as error:  # it will look dead soon
            print(f"warning: {error}", file=sys.stderr)

    def _text(self) -> str:
        content = {"holder": self._holder, "workplace": self._workplace, "beat": self._count}
        return json.dumps(content)

    def _write(self) -> None:
        self._store.write(self._name, self._text())

    def _read(self) -> dict[str, Any] | None:
        text = self._store.read(self._name)
        if text is None:
            return None
        nobody = {"holder": "", "workplace": "", "text": text}  # just being written, or broken
        try:
            content = json.loads(text)
            return content if {"holder", "workplace"} <= set(content) else nobody
        except (json.JSONDecodeError, TypeError):
            return nobody
