"""Who sends spools: the process beside a training, the next training's, or a person."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowsight.errors import InputError
from flowsight.tracking import place, spool
from flowsight.tracking.delivery import Delivery

WAITS = 75
"""Exit code of the process beside a training: it has said itself what waits."""
GRACE_SEC = 15.0
"""How long a store that is away is waited for when the training has ended."""
_AWAY = ("Max retries exceeded", "Connection", "timed out", "could not connect")
_POLL_SEC = 0.5
_LONGEST_PAUSE_SEC = 30.0
_SYSTEM_SEC = 5.0


def in_one_line(error: BaseException) -> str:
    """What an error says, for people."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def warn(reason: str, path: Path, uri: str) -> None:
    """One line that says what waits where, and the command that sends it."""
    print(
        f"tracking: {reason} ({place.plain(uri)}); the work goes on, what it logs waits in {path}; "
        f"`flowsight tracking send {path.parent}` sends it",
        file=sys.stderr,
    )


# ---- beside a training ----


def follow(path: Path, *, grace_sec: float = GRACE_SEC) -> bool:
    """Send what a training writes, until it ends and a little longer if the store is away.

    Between its lines it sends what earlier trainings left for the same store.

    Args:
        path: of its spool.
        grace_sec: how long to try after its end.

    Returns:
        Whether all was sent; else one line on stderr has said why not.
    """
    with spool.claimed(path) as is_mine:
        if not is_mine:
            return not path.exists()
        delivery = Delivery(path)
        with _system_metrics(delivery):
            error = _Follower(delivery, grace_sec).run()
    if error is not None:
        warn(error, path, delivery.uri)
    return error is None


class _Follower:
    def __init__(self, delivery: Delivery, grace_sec: float) -> None:
        self.delivery = delivery
        self.grace_sec = grace_sec
        self.error = "not sent yet"
        self.pause_sec = 1.0
        self.next_try = 0.0
        self.over_since: float | None = None
        self.left_over = _others(delivery)

    def run(self) -> str | None:
        """What kept it from being sent; None: nothing."""
        while True:
            if self.over_since is None and not spool.is_written(self.delivery.path):
                self.over_since = time.monotonic()
                self.next_try = 0.0  # no matter how long it was to pause
            if time.monotonic() >= self.next_try and self._try():
                return None
            if self._is_given_up():
                return self.error
            time.sleep(_POLL_SEC)

    def _try(self) -> bool:
        try:
            if self.delivery.advance():
                return True
            self.error, self.pause_sec = "not all sent yet", 1.0
            if self.over_since is None:
                next(self.left_over, None)
        except FileNotFoundError:  # a person removed it
            return True
        except Exception as error:  # whatever a server or a database may raise
            self.error = in_one_line(error)
            with contextlib.suppress(FileNotFoundError):
                self.delivery.start_over()
            self.next_try = time.monotonic() + self.pause_sec
            if self.over_since is None:
                self.pause_sec = min(2 * self.pause_sec, _LONGEST_PAUSE_SEC)
            else:
                self.pause_sec = 1.0
        return False

    def _is_given_up(self) -> bool:
        return self.over_since is not None and (time.monotonic() - self.over_since > self.grace_sec)


def _others(own: Delivery) -> Iterator[None]:
    """Send what others left for the same store, one each time it is asked."""
    for path in spool.waiting(own.path.parent):
        # what fails stays where it is; its training, or `flowsight tracking`, says why
        with contextlib.suppress(Exception):
            if path != own.path and not spool.is_written(path):
                _send_for(own, path)
                yield


def _send_for(own: Delivery, path: Path) -> None:
    with spool.claimed(path) as is_mine:
        if is_mine:
            other = Delivery(path)
            # one of another machine may have a process of its own, where locks do not reach
            if other.uri == own.uri and other.is_complete():
                other.advance()


@contextmanager
def _system_metrics(delivery: Delivery) -> Iterator[None]:
    """What the machine does meanwhile: processors, memory, disk, network, GPUs."""
    # made before the thread runs: two threads that import MLflow at once see halves of it
    monitors = _monitors()
    over = threading.Event()
    threading.Thread(target=_measure, args=(delivery, monitors, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _monitors() -> list[Any]:
    """MLflow's own, without the client that its `SystemMetricsMonitor` would open.

    That client would set up the store's tables beside the delivery's, which holds a lock for it.
    """
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    found = []
    for kind in (CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor):
        with contextlib.suppress(Exception):  # a machine without it, or that does not tell
            found.append(kind())
    return found


def _measure(delivery: Delivery, monitors: list[Any], over: threading.Event) -> None:
    step = 0
    while not over.wait(_SYSTEM_SEC):
        found: dict[str, float] = {}
        for monitor in monitors:
            with contextlib.suppress(Exception):  # nobody depends on it
                monitor.collect_metrics()
                found |= {f"system/{n}": v for n, v in monitor.aggregate_metrics().items()}
                monitor.clear_metrics()
        if found and spool.is_written(delivery.path):
            delivery.extra.append({"metrics": found, "step": step, "time_ms": spool.now_ms()})
        step += 1


# ---- by a command ----


@dataclass(frozen=True)
class Waiting:
    """A spool that is not sent yet."""

    path: Path
    name: str
    uri: str
    """Where it is meant to go, without log-in."""
    start_ms: int
    num_steps: int
    state: str
    """`training`: its training writes; `waiting`; `unreadable`."""


def waiting(folder: Path) -> list[Waiting]:
    """What a folder's spools hold, the oldest first."""
    return [_look(path) for path in spool.waiting(folder)]


def _look(path: Path) -> Waiting:
    try:
        lines = spool.Lines(path)
    except (InputError, OSError):
        return Waiting(path, "?", "?", 0, 0, "unreadable")
    steps = sum("metrics" in message for message in lines.read())
    lines.close()
    start: dict[str, Any] = lines.start
    state = "training" if spool.is_written(path) else "waiting"
    return Waiting(path, start["name"], start["uri"], start["time_ms"], steps, state)


@dataclass(frozen=True)
class Sent:
    """What became of a spool."""

    path: Path
    name: str
    num_steps: int
    why: str = ""
    """Why it is not sent; empty where it is."""
    is_failed: bool = False
    """Whether a person must see to it; what is still written, or sent by others, needs nobody."""

    @property
    def is_sent(self) -> bool:
        """Whether MLflow has all of it."""
        return not self.why


def send(
    folder: Path, *, uri: str | None = None, told: Callable[[Sent], None] = lambda _: None
) -> list[Sent]:
    """Send every spool of a folder whose training has ended.

    Args:
        folder: of spools.
        uri: where to send them; None: where each was meant for.
        told: called after each.
    """
    os.environ.update({n: v for n, v in place.ENVIRONMENT.items() if n not in os.environ})
    found: list[Sent] = []
    away: dict[str, str] = {}
    for one in waiting(folder):
        sent = _send(one, uri, away)
        told(sent)
        found.append(sent)
    return found


def _send(one: Waiting, uri: str | None, away: dict[str, str]) -> Sent:
    where = uri or one.uri
    if one.state == "training":
        return Sent(one.path, one.name, 0, "its training goes on and sends it")
    if one.state == "unreadable":
        return Sent(one.path, one.name, 0, f"the first line of {one.path} is broken", True)
    if where in away:  # asking again for each takes seconds
        return Sent(one.path, one.name, 0, away[where], True)
    with spool.claimed(one.path) as is_mine:
        if not is_mine:
            return Sent(one.path, one.name, 0, "another process sends it")
        try:
            delivery = Delivery(one.path, uri)
            is_sent = delivery.advance()
        except Exception as error:  # whatever a server or a database may raise
            said = in_one_line(error)
            if any(sign in said for sign in _AWAY):
                away[where] = said
            return Sent(one.path, one.name, 0, said, True)
    why = "" if is_sent else "all so far is sent, but another machine may still write"
    return Sent(one.path, one.name, delivery.num_steps, why)
