"""The worker's end of a process that runs DVC commands (`dvc_server`)."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from flowsight.cluster import processes
from flowsight.cluster.processes import Done

_SERVER = str(Path(__file__).with_name("dvc_server.py"))
_open: dict[Path, DvcSession] = {}


@contextmanager
def shared(tree: Path, env: Mapping[str, str]) -> Iterator[None]:
    """In the block all commands in a work tree go to one process, which starts right away.

    Args:
        tree: the work tree, a DVC repository.
        env: the whole environment of the process.
    """
    with DvcSession(tree, env) as session:
        session.start()
        _open[tree] = session
        try:
            yield
        finally:
            del _open[tree]


def run(
    tree: Path,
    env: Mapping[str, str],
    arguments: Sequence[str],
    *,
    variables: Mapping[str, str] | None = None,
    locks: Sequence[int] = (),
    quiet: bool = False,
) -> Done:
    """Run a DVC command in a work tree: in its shared process, else in one of its own.

    Args:
        tree: the work tree.
        env: the whole environment of a process of its own.
        arguments: after `dvc`; or `list-outs [PATH]`.
        variables: added to the environment for this command.
        locks: file descriptors that stay open as long as the command runs, also when we die.
        quiet: print nothing.
    """
    if tree in _open:
        return _open[tree].run(arguments, variables or {}, locks, quiet)
    with DvcSession(tree, env) as session:
        return session.run(arguments, variables or {}, locks, quiet)


class DvcSession:
    """A process that runs DVC commands in a work tree, one at a time."""

    def __init__(self, tree: Path, env: Mapping[str, str]) -> None:
        self._tree, self._env = tree, env
        self._process: subprocess.Popen[str] | None = None
        self._connection: socket.socket | None = None

    def __enter__(self) -> DvcSession:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def start(self) -> None:
        """Start the process; its imports go on while we do something else."""
        self._close()
        self._connection, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", "-u", _SERVER, str(theirs.fileno())]
            self._process = processes.start(
                command, cwd=self._tree, env=self._env, kept=theirs.fileno()
            )

    def run(
        self,
        arguments: Sequence[str],
        variables: Mapping[str, str],
        locks: Sequence[int],
        quiet: bool,
    ) -> Done:
        """See `run` of this module; what kills the process ends the command with 128 + signal."""
        if self._process is None or self._process.poll() is not None:
            self.start()
        assert self._process is not None
        mark = uuid.uuid4().hex
        self._send({"arguments": [*arguments], "variables": {**variables}, "mark": mark}, locks)
        return processes.follow(self._process, mark=mark, quiet=quiet)

    def _send(self, request: Mapping[str, object], locks: Sequence[int]) -> None:
        assert self._connection is not None
        content = json.dumps(request).encode()
        # a process that has just died says so by the end of its output
        with suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._connection, [len(content).to_bytes(4, "big")], [*locks])
            self._connection.sendall(content)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            processes.kill_group(self._process)
        self._process = self._connection = None
