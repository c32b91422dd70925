"""Commands that can be stopped whole, and what they said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from flowsight.errors import ResourceError

# by its path: the commands may run with the package of another revision
_GUARD = str(Path(__file__).with_name("guard.py"))


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    code: int
    """0..255; 128 + n after signal n."""
    lines: tuple[str, ...]
    """What it printed, both streams."""


def run(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], quiet: bool = False) -> Done:
    """Run a command in a process group of its own; its output goes to our stderr as it comes.

    Whatever ends us ends the whole group (see `guard`).

    Args:
        command: program, found on the environment's PATH, and arguments.
        cwd: where.
        env: the whole environment.
        quiet: print nothing.
    """
    process = start(["env", *command], cwd=cwd, env=env)
    try:
        return follow(process, quiet=quiet)
    finally:
        kill_group(process)


def start(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    kept: int | None = None,
    read: bool = True,
) -> subprocess.Popen[str]:
    """Start a command in a process group of its own that ends with us.

    Args:
        command: program and arguments.
        cwd: where.
        env: the whole environment.
        kept: a file descriptor that the command inherits under the same number.
        read: whether what it prints comes to us; else it goes where our own goes.
    """
    keep = [] if kept is None else ["--keep", str(kept)]
    return subprocess.Popen(
        [sys.executable, "-P", _GUARD, *keep, *command],
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if read else None,
        stderr=subprocess.STDOUT if read else None,
        pass_fds=() if kept is None else (kept,),
        process_group=0,
        text=True,
        errors="replace",
    )


def follow(process: subprocess.Popen[str], *, mark: str | None = None, quiet: bool = False) -> Done:
    """Read what a process prints until it ends, or until a line ends in `<mark> <exit code>`."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        text, marked, code = line.rstrip("\n"), "", ""
        if mark:
            text, marked, code = text.partition(mark)
        if text or not marked:
            lines.append(text)
            if not quiet:
                print(text, file=sys.stderr, flush=True)
        if marked:
            return Done(int(code), tuple(lines))
    ended = process.wait()
    return Done(ended if ended >= 0 else 128 - ended, tuple(lines))


def kill_group(process: subprocess.Popen[Any]) -> None:
    """Kill a process that `start` started with all of its group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


class StoppedError(ResourceError):
    """Somebody asked us to stop: the work is given up here, another try may do it."""


@contextmanager
def stoppable() -> Iterator[None]:
    """In the block SIGTERM, SIGINT and SIGHUP raise `StoppedError`, once; so clean-ups run."""
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def stop(number: int, frame: FrameType | None) -> None:
        for one in signals:
            signal.signal(one, signal.SIG_IGN)
        raise StoppedError(f"stopped by {signal.Signals(number).name}; run again to go on")

    old = {one: signal.signal(one, stop) for one in signals}
    try:
        yield
    finally:
        for one, handler in old.items():
            signal.signal(one, handler)
