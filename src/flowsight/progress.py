"""Progress of long work, with the time left, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")

_LINE_EVERY_SEC = 10.0


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yield the items and show how far it is.

    A bar on a terminal; elsewhere (CI, a scheduler's log) a line every ten seconds,
    so that a log stays readable. Short work prints nothing in a log.

    Args:
        items: what to go through.
        description: two or three words.
        total: how many there are, if `len(items)` does not say.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty():
        yield from _bar(items, description, total)
    else:
        yield from _lines(items, description, total)


def _bar(items: Iterable[Item], description: str, total: int | None) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield from progress.track(items, description=description, total=total)


def _lines(items: Iterable[Item], description: str, total: int | None) -> Iterator[Item]:
    start = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= _LINE_EVERY_SEC:
            last = now
            left = f", {(now - start) / done * (total - done):.0f} s left" if total else ""
            print(f"{description}: {done}/{total or '?'}{left}", file=sys.stderr, flush=True)


@contextmanager
def meter(description: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    """Show how many of something are done, how many a second, and the time left.

    A bar on a terminal; elsewhere a line every ten seconds, as `track`.

    Args:
        description: two or three words.
        total: how many there will be, None if unknown; a guess will do.
        unit: what is counted, in the plural.

    Yields:
        update(done), with the number done so far.
    """
    if sys.stderr.isatty():
        with _meter_bar(description, total, unit) as update:
            yield update
    else:
        yield _meter_lines(description, total, unit)


@contextmanager
def _meter_bar(description: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    rate = TextColumn("{task.fields[rate]:.1f} " + unit + "/s")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        rate,
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=total, rate=0.0)
        start = time.monotonic()

        def update(done: int) -> None:
            rate = done / max(time.monotonic() - start, 1e-9)
            progress.update(task, completed=done, rate=rate)

        yield update


def _meter_lines(description: str, total: int | None, unit: str) -> Callable[[int], None]:
    start = last = time.monotonic()

    def update(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _LINE_EVERY_SEC or done == 0:
            return
        last, rate = now, done / (now - start)
        left = f", {max(0, total - done) / rate:.0f} s left" if total else ""
        text = f"{description}: {done}/{total or '?'} {unit}, {rate:.1f} {unit}/s{left}"
        print(text, file=sys.stderr, flush=True)

    return update
