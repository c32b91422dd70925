"""DVC commands one after the other in one process: python dvc_server.py FD

DVC takes over a second of imports; a stage needs three to six of its commands. FD is a socket on
which the worker sends requests (see `dvc_session`); what a command prints goes to stdout, then the
request's mark and the command's exit code. Run by its path: the work tree may hold a package of
another revision.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

_PR_SET_CHILD_SUBREAPER = 36
_MAX_LOCKS = 64


def main(connection: socket.socket) -> None:
    """Serve until the worker closes its end."""
    _adopt_orphans()
    import dvc.cli.parser
    import dvc.repo  # noqa: F401  both while the worker prepares its tree

    while (received := _receive(connection)) is not None:
        request, locks = received
        with _variables(request["variables"]):
            code = _serve(request["arguments"])
        _kill_what_is_left()
        for lock in locks:
            os.close(lock)
        _forget_listings()
        sys.stdout.flush()
        sys.stderr.flush()
        print(f"{request['mark']} {code}", flush=True)


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """A request and the open files that came with it; None at the end."""
    size = array.array("i").itemsize
    head, ancillary, _, _ = connection.recvmsg(4, socket.CMSG_LEN(_MAX_LOCKS * size))
    locks = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            locks.frombytes(data[: len(data) - len(data) % size])
    for lock in locks:
        os.set_inheritable(lock, False)
    with connection.makefile("rb") as stream:
        content = stream.read(int.from_bytes(head, "big"))
    return (json.loads(content), list(locks)) if content else None


@contextlib.contextmanager
def _variables(added: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]


def _serve(arguments: list[str]) -> int:
    try:
        if arguments[0] == "list-outs":
            list_outs(*arguments[1:])
            return 0
        from dvc.cli import main as dvc

        return int(dvc(arguments) or 0)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except Exception:  # the worker reads the last lines
        traceback.print_exc()
        return 1


def list_outs(path: str | None = None) -> None:
    """Print {path: MD5} of every file that DVC knows here, as JSON; only below `path` if given.

    Of folders only DVC's list is fetched, no content. (`dvc list` does the same, but stumbles over
    folders that are not there.)
    """
    from dvc.repo import Repo

    found: dict[str, str] = {}
    with Repo(".") as repo:
        for out in repo.index.outs:
            at = PurePosixPath(out.fs.relpath(out.fs_path, repo.root_dir))
            if not out.hash_info or (path is not None and str(at) != path):
                continue
            if not out.hash_info.isdir:
                found[str(at)] = out.hash_info.value
                continue
            out.get_dir_cache()
            for parts, _, hash_info in out.obj:
                found[str(at.joinpath(*parts))] = hash_info.value
    print(json.dumps(found))


def _adopt_orphans() -> None:
    """What a stage's command leaves behind becomes our child, not init's."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _kill_what_is_left() -> None:
    """A command is over when nothing of it computes any more."""
    import psutil

    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _forget_listings() -> None:
    """File systems remember what is in a remote; others change it between two commands."""
    import fsspec

    kinds = [fsspec.AbstractFileSystem]
    for kind in kinds:
        kinds += kind.__subclasses__()
        kind.clear_instance_cache()


if __name__ == "__main__":
    # a closed worker must not end in a message of ours
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    main(socket.socket(fileno=int(sys.argv[1])))
