"""Services as plain processes on loopback: start, wait until healthy, kill, stop, leave nothing.

Every process carries a mark in its environment, inherited by all its children. What survives a
stop (a task in a session of its own, an orphan of a killed worker) is found by that mark.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

MARK = "FLOWSIGHT_TEST_MARK"


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def until(
    check: Callable[[], bool], what: str, *, timeout_sec: float, every_sec: float = 0.5
) -> float:
    """Wait until `check` holds; an exception of its connection counts as not yet.

    Returns:
        Seconds waited.

    Raises:
        TimeoutError: naming what was waited for.
    """
    start = time.monotonic()
    while True:
        with contextlib.suppress(OSError):  # urllib's errors and timeouts are among them
            if check():
                return time.monotonic() - start
        if time.monotonic() - start > timeout_sec:
            raise TimeoutError(f"waited {timeout_sec:.0f} s for {what}")
        time.sleep(every_sec)


@dataclass
class Service:
    """One long-running process, with all it needs to be started again."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    log: Path
    cwd: Path
    user: str | None = None
    """Run as this user (a root-owned test starting what refuses root)."""
    stop_signal: signal.Signals = signal.SIGTERM
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        account = pwd.getpwnam(self.user) if self.user else None
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.cwd,
                env=dict(self.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=[] if account else None,
            )

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} was not started"
        return self.process.pid

    def ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def wait(self, timeout_sec: float) -> int:
        """Exit code of a process that ends by itself."""
        assert self.process is not None, f"{self.name} was not started"
        return self.process.wait(timeout_sec)

    def tail(self, num_lines: int = 25) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-num_lines:])

    def wait_healthy(self, check: Callable[[], bool], timeout_sec: float = 120) -> float:
        """Wait for the check; a process that ended before is reported with its last lines."""

        def alive_and_healthy() -> bool:
            if self.ended():
                code = self.process.returncode if self.process else None
                raise AssertionError(f"{self.name} ended with {code}:\n{self.tail()}")
            return check()

        try:
            return until(alive_and_healthy, f"{self.name} to be healthy", timeout_sec=timeout_sec)
        except TimeoutError as error:
            raise AssertionError(f"{error}; its last lines:\n{self.tail()}") from None

    def stop(self, timeout_sec: float = 20) -> None:
        """Ask it to end, then kill its whole process group.

        Nothing is sent to the number of a process that had ended before: it may be another's now.
        """
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(self.stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout_sec)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def kill_tree(self) -> list[int]:
        """`kill -9` of the process and of everything below it, as a machine that loses power.

        Returns:
            Process ids that were killed.
        """
        root = psutil.Process(self.pid)
        root.suspend()  # it must not start another child between the listing and the kill
        victims = [root, *root.children(recursive=True)]
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        psutil.wait_procs(victims, timeout=10)
        assert self.process is not None
        self.process.wait()
        return [victim.pid for victim in victims]


class Services:
    """What was started, in order; `close` ends all of it in reverse."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.started: list[Service] = []
        (folder / "logs").mkdir(parents=True, exist_ok=True)

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        env: Mapping[str, str],
        *,
        cwd: Path | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> Service:
        service = Service(
            name=name,
            command=[str(part) for part in command],
            env={**env, MARK: self.mark},
            log=self.folder / "logs" / f"{name}.log",
            cwd=cwd or self.folder,
            user=user,
            stop_signal=stop_signal,
        )
        service.start()
        self.started.append(service)
        return service

    def close(self) -> list[int]:
        """Stop everything.

        Returns:
            Ids of processes that had outlived their service and were killed by their mark.
        """
        for service in reversed(self.started):
            with contextlib.suppress(Exception):  # the rest must be stopped all the same
                service.stop()
        return kill_marked(self.mark)


def kill_marked(mark: str) -> list[int]:
    """Kill every process that carries the mark."""
    return kill_all(lambda process: process.environ().get(MARK) == mark)


def kill_all(chosen: Callable[[psutil.Process], bool]) -> list[int]:
    """Kill every process that is chosen by its environment; those not readable are not."""

    def is_chosen(process: psutil.Process) -> bool:
        try:
            return chosen(process)
        except (psutil.Error, OSError):
            return False

    found = [process for process in psutil.process_iter() if is_chosen(process)]
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(found, timeout=10)
    return [process.pid for process in found]


def unprivileged_user() -> str | None:
    """Whom PostgreSQL runs as: nobody else than we, unless we are root, whom it refuses."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
