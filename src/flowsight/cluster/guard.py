"""Run a command so that nobody computes for the dead: python guard.py [--keep FD] CMD ...

It leads a process group of its own. Its input is a pipe that the worker holds open; when the
worker dies in whatever way, the pipe ends and the whole group is killed. The command inherits no
file but FD.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path


def _watch() -> None:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Run the command and end as it did: with its code, or 128 + the signal's number."""
    command, kept = sys.argv[1:], []
    if command[0] == "--keep":
        kept, command = [int(command[1])], command[2:]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=True, pass_fds=kept)
    threading.Thread(target=_watch, daemon=True).start()
    code = child.wait()
    if code < 0:
        _kill_others()  # what a killed command had started would go on, and hold its output open
    os._exit(code if code >= 0 else 128 - code)


def _kill_others() -> None:
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry.name)
            if pid != os.getpid() and os.getpgid(pid) == os.getpid():
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    if os.getpgid(0) != os.getpid():
        os.setpgid(0, 0)
    main()
