"""A process that has imported and forks commands: python server.py SOCKET MODULE...

The socket appears when the modules are imported. stdin is the life line: at its end no more
commands are taken, and the process ends with the last one.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import random
import runpy
import selectors
import signal
import socket
import sys
import threading
import traceback
import warnings
from pathlib import Path
from typing import Any, NoReturn

Request = dict[str, Any]


def main() -> None:
    """Serve; in a child, be the command."""
    address, modules = sys.argv[1], sys.argv[2:]
    del sys.path[0]  # this folder
    for name in modules:
        importlib.import_module(name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()  # else the children's collections would copy every page
    request = _Server(address).serve()
    if request is not None:
        _end(_exit_code(request))


class _Server:
    def __init__(self, address: str) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(address + ".new")
        self.listener.listen(64)
        Path(address + ".new").rename(address)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ, self._take)
        self.selector.register(0, selectors.EVENT_READ, self._close)
        self.running = 0
        self.is_open = True

    def serve(self) -> Request | None:
        """Until the end, None; in a child, what it is to do."""
        while self.is_open or self.running:
            for key, _ in self.selector.select():
                request = key.data()
                if request is not None:
                    return request
        return None

    def _close(self) -> None:
        for watched in (0, self.listener):
            self.selector.unregister(watched)
        self.listener.close()
        self.is_open = False

    def _take(self) -> Request | None:
        client, _ = self.listener.accept()
        client.settimeout(10)  # a client that stops in the middle must not hold up the others
        try:
            head, files, _, _ = socket.recv_fds(client, 8, 3)
            with client.makefile("rb") as stream:
                request: Request = json.loads(stream.read(int.from_bytes(head, "big")))
        except (OSError, ValueError):
            client.close()
            return None
        with warnings.catch_warnings():
            # Python's threads are one; the others are OpenBLAS's, which knows how to fork
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            client.close()
            self._become(files)
            return request
        for file in files:
            os.close(file)
        self._watch(client, child)
        return None

    def _become(self, files: list[int]) -> None:
        os.setsid()  # so that all of the command can be killed at once
        for key in list(self.selector.get_map().values()):
            os.close(key.fd)  # others' clients among them
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.detach()
        self.selector.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)

    def _watch(self, client: socket.socket, child: int) -> None:
        self.running += 1
        ended = os.pidfd_open(child)
        is_gone = False

        def client_gone() -> None:
            nonlocal is_gone
            is_gone = True
            self.selector.unregister(client)
            for kill in (os.killpg, os.kill):  # it may not lead its group yet
                with contextlib.suppress(ProcessLookupError):
                    kill(child, signal.SIGKILL)

        def child_ended() -> None:
            self.selector.unregister(ended)
            os.close(ended)
            _, status = os.waitpid(child, 0)
            if not is_gone:
                self.selector.unregister(client)
                with contextlib.suppress(OSError):  # it went in this moment
                    client.sendall(str(status).encode())
            client.close()
            self.running -= 1

        # the client says nothing more: readable means closed
        self.selector.register(client, selectors.EVENT_READ, client_gone)
        self.selector.register(ended, selectors.EVENT_READ, child_ended)


def _exit_code(request: Request) -> int:
    """Run the command to its end, and say what is wrong as Python does."""
    try:
        _run(request)
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException as error:
        traceback.print_exc()
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _end(code: int) -> NoReturn:
    """Exit handlers, but not the second it takes to clear away all that was imported."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the end does
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed, or nobody reads any more
            stream.flush()
    os._exit(code)


def _run(request: Request) -> None:
    """Be the command, with the environment it was called in."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed()  # else every command would draw the same
    os.environ.clear()
    os.environ.update(request["environment"])
    os.umask(request["umask"])
    os.chdir(request["cwd"])
    if isinstance(sys.__stdout__, io.TextIOWrapper):
        unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
        sys.__stdout__.reconfigure(line_buffering=os.isatty(1), write_through=unbuffered)
    command, *arguments = request["arguments"]
    if command == "dvc":
        from dvc.cli import main as dvc

        sys.argv = [str(Path(sys.executable).parent / "dvc"), *arguments]
        raise SystemExit(dvc())
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path.insert(0, request["cwd"])
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(arguments[0]).absolute().parent))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
