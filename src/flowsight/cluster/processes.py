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


def run(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    locks: Sequence[int] = (),
    quiet: bool = False,
) -> Done:
    """Run a command in a process group of its own; its output goes to our stderr as it comes.

    Whatever ends us ends the whole group (see `guard`).

    Args:
        command: program, found on the environment's PATH, and arguments.
        cwd: where.
        env: the whole environment.
        locks: file descriptors that must stay open as long as anything of it lives.
        quiet: print nothing.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", _GUARD, "env", *command],
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=tuple(locks),
        process_group=0,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    lines = []
    try:
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if not quiet:
                print(line, end="", file=sys.stderr, flush=True)
        code = process.wait()
    finally:
        _kill_group(process)
    return Done(code if code >= 0 else 128 - code, tuple(lines))


def _kill_group(process: subprocess.Popen[Any]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


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
