"""Run a command so that nobody computes for the dead: python guard.py CMD ...

It leads a process group of its own. Its input is a pipe that the worker holds open; when the
worker dies in whatever way, the pipe ends and the whole group is killed. Locks that the worker
hands down (GPU leases) are held until then, by this process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def _watch() -> None:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Run the command and end as it did: with its code, or 128 + the signal's number."""
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, close_fds=True)
    threading.Thread(target=_watch, daemon=True).start()
    code = child.wait()
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    if os.getpgid(0) != os.getpid():
        os.setpgid(0, 0)
    main()
