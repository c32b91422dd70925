"""Jobs side by side in processes that count their frames, stop together and die with their parent.

One process a worker: decoding, flow and JPEG release Python's lock, the zip around them does not.
A single worker is a thread of this process.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2

from flowsight.errors import InputError, ResourceError

Item = TypeVar("Item")

_POLL_SEC = 0.5


@dataclass(frozen=True)
class _Shared:
    """What the processes of one run have in common."""

    stop: Any
    done: Any


class _StoppedError(Exception):
    """Another job's failure ended the run."""


_shared: _Shared | None = None


def run(
    job: Callable[[Item], str],
    items: Sequence[Item],
    *,
    workers: int,
    update: Callable[[int], None] = lambda done: None,
) -> list[str]:
    """What the job says of each item, in the items' order.

    Args:
        job: a function that other processes can import (or a partial of one); it goes through
            its frames by `counted`.
        items: plain values.
        workers: processes; 1 stays in this one.
        update: called twice a second with the number of frames done by all.

    Raises:
        ResourceError: a process was killed. Whatever else a job raises comes out as it is, and
            the other jobs end at their next frame.
    """
    global _shared
    # fresh processes: forking one that has threads (OpenCV's, torch's) may hang, and workers keep
    # the standard fork server alive after their parent is killed
    context = multiprocessing.get_context("spawn")
    shared = _Shared(stop=context.Event(), done=context.Value("q", 0))
    if workers == 1:
        _shared = shared
        pool: Executor = ThreadPoolExecutor(1)
    else:
        pool = ProcessPoolExecutor(
            workers, mp_context=context, initializer=_start, initargs=(shared, os.getpid())
        )
    try:
        futures = [pool.submit(job, item) for item in items]
        _watch_over(futures, lambda: update(shared.done.value))
        return [future.result() for future in futures]
    except BrokenProcessPool:
        raise ResourceError(
            "a worker process was killed, most likely for want of memory; "
            "lower FLOWSIGHT_WORKERS and run again"
        ) from None
    finally:
        shared.stop.set()
        pool.shutdown(cancel_futures=True)
        _shared = None


def counted(frames: Iterable[Item], *, size: int = 1) -> Iterator[Item]:
    """The frames, each counted as done (`size` for all of them that it stands for).

    Raises:
        _StoppedError: another job of the run has failed.
    """
    for frame in frames:
        if _shared is not None and _shared.stop.is_set():
            raise _StoppedError
        yield frame
        if _shared is not None:
            with _shared.done.get_lock():
                _shared.done.value += size


def _watch_over(futures: Sequence[Future[str]], update: Callable[[], None]) -> None:
    """Wait for all; the first failure comes out at once."""
    waiting = set(futures)
    while waiting:
        finished, waiting = wait(waiting, _POLL_SEC, return_when="FIRST_EXCEPTION")
        for future in finished:
            future.result()
        update()


def _start(shared: _Shared, parent: int) -> None:
    """A worker's first act."""
    global _shared
    _shared = shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C for all
    cv2.setNumThreads(1)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nobody else would tell us
        if os.getppid() != parent:
            os._exit(1)


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
