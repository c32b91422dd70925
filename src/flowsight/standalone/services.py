"""Processes that run until they are told to stop, and everything they start in turn."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from flowsight.errors import FlowsightError, InputError

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SHOWN_LINES = 15


@dataclass(frozen=True)
class Service:
    """A running service."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


def check_port(name: str, port: int) -> None:
    """Refuse a port that somebody listens on.

    Raises:
        InputError: naming the option that chooses another.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(
                f"expected port {port} of 127.0.0.1 to be free for {name}, got "
                f"{error.strerror!r}; choose another with --port or --mlflow-port"
            ) from None


def adopt_orphans() -> None:
    """Have grandchildren whose parent died become our children, so that stopping finds them."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def start(name: str, command: Sequence[str], env: Mapping[str, str], log: Path) -> Service:
    """Start a service; Ctrl-C in the terminal does not reach it, only `stop` does."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as file:
        process = subprocess.Popen(
            # `env` looks the command up on the new PATH
            ["env", *command],
            env=dict(env),
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
    return Service(name, process, log)


def check_alive(services: Sequence[Service]) -> None:
    """Notice a service that ended by itself.

    Raises:
        FlowsightError: with the end of its log.
    """
    for service in services:
        code = service.process.poll()
        if code is not None:
            lines = service.log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:]
            print("\n".join(lines), file=sys.stderr)
            raise FlowsightError(
                f"{service.name} ended with exit code {code}; its log: {service.log}"
            )


def finish(service: Service, limit_sec: float = 120) -> None:
    """Wait for a service that does one thing and ends.

    Raises:
        FlowsightError: it failed, or took longer than the limit.
    """
    try:
        code = service.process.wait(limit_sec)
    except subprocess.TimeoutExpired:
        raise FlowsightError(
            f"{service.name} took longer than {limit_sec:.0f} s; its log: {service.log}"
        ) from None
    if code:
        check_alive([service])


def stop(services: Sequence[Service], grace_sec: float = 10) -> int:
    """End services and all that they started: asked first, the rest told, then killed.

    Returns:
        Number of processes that had to be killed.
    """
    for service in services:
        if service.process.poll() is None:
            service.process.terminate()
    if not _gone(grace_sec):
        _signal_all(signal.SIGTERM)
    killed = 0
    if not _gone(grace_sec / 2):
        killed = _signal_all(signal.SIGKILL)
        _gone(grace_sec)
    for service in services:
        service.process.poll()
    _bury_orphans()
    return killed


def _bury_orphans() -> None:
    """Take note of the end of adopted processes; where nobody does they stay in the table."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _running() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def _gone(within_sec: float) -> bool:
    end = time.monotonic() + within_sec
    while _running():
        if time.monotonic() >= end:
            return False
        time.sleep(0.1)
    return True


def _signal_all(number: signal.Signals) -> int:
    running = _running()
    for process in running:
        # psutil checks that the number still belongs to the same process
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue
    return len(running)
