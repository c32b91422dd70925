"""What was done to a model in service, in order: lock and memory in one.

Entry number n of a model is the experiment `promotions/<model>/<n>`. MLflow makes an experiment
with all its tags in one step and never two of one name, not even after one was deleted; its aliases
know no compare-and-set. So who makes entry n may move the aliases, and the entry stays as the
record. An entry is never changed but for its state: open, then done or undone.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowsight.errors import ResourceError
from flowsight.registry.store import Registry, TakenError, speaking

OPEN, DONE, UNDONE = "open", "done", "undone"
LEASE_SEC = 60.0
"""Moving the aliases takes a second; one that has not ended after this will not."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Where the aliases stand, and where they shall stand."""

    action: str
    """`promote`, `rollback` or `recover` (which plans nothing of its own)."""
    champion: tuple[str | None, str | None] = (None, None)
    """Versions before and after."""
    previous: tuple[str | None, str | None] = (None, None)
    why: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the trail."""

    model: str
    number: int
    experiment_id: str
    state: str
    note: str
    """Said when it was settled by another one."""
    who: str
    since: float
    """Seconds since the epoch."""
    holder: str
    """Process that works on it: `<machine>|<pid>|<its start>`."""
    plan: Plan

    @property
    def when(self) -> str:
        """Date and time, UTC."""
        return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(self.since))

    @property
    def remaining_sec(self) -> float:
        """How long it may still move aliases."""
        return self.since + LEASE_SEC - time.time()


def entries(registry: Registry, model: str) -> list[Entry]:
    """All entries of a model, the oldest first, deleted ones too."""
    from mlflow.entities import ViewType

    prefix, token, found = f"promotions/{model}/", None, []
    while True:
        with speaking(registry.uri):
            page = registry.client.search_experiments(
                view_type=ViewType.ALL,
                filter_string=f"name LIKE '{prefix}%'",
                page_token=token,
            )
        found += [_read(model, one) for one in page if re.fullmatch(prefix + r"\d+", one.name)]
        token = page.token
        if not token:
            return sorted(found, key=lambda entry: entry.number)


def _read(model: str, experiment: Any) -> Entry:
    tags = experiment.tags
    plan = json.loads(tags.get("plan", "{}"))
    return Entry(
        model=model,
        number=int(experiment.name.rpartition("/")[2]),
        experiment_id=str(experiment.experiment_id),
        state=tags.get("state", UNDONE),
        note=tags.get("note", ""),
        who=tags.get("who", "?"),
        since=float(tags.get("since", "0")),
        holder=tags.get("holder", ""),
        plan=Plan(
            action=plan.get("action", "?"),
            champion=tuple(plan.get("champion", (None, None))),
            previous=tuple(plan.get("previous", (None, None))),
            why=plan.get("why", ""),
            numbers=plan.get("numbers", {}),
        ),
    )


def next_number(trail: list[Entry]) -> int:
    """The number that the next entry takes."""
    return trail[-1].number + 1 if trail else 1


def begin(registry: Registry, model: str, number: int, plan: Plan) -> Entry:
    """Make an entry: from now on only we may move the aliases.

    Args:
        registry: where.
        model: registered name.
        number: the one after the last entry seen when the decision was made, so that a decision
            made before somebody else's change is never carried out after it.
        plan: what shall be done.

    Raises:
        ResourceError: somebody else made that entry first.
    """
    content = {
        "action": plan.action,
        "champion": plan.champion,
        "previous": plan.previous,
        "why": plan.why,
        "numbers": plan.numbers,
    }
    tags = {
        "state": OPEN,
        "who": who(),
        "since": repr(time.time()),
        "holder": _holder(),
        "plan": json.dumps(content, sort_keys=True),
    }
    try:
        registry.create_experiment(f"promotions/{model}/{number}", tags)
    except TakenError:
        raise ResourceError(_lost(registry, model, number)) from None
    return next(entry for entry in entries(registry, model) if entry.number == number)


def _lost(registry: Registry, model: str, number: int) -> str:
    winner = [entry for entry in entries(registry, model) if entry.number == number]
    by = f"{winner[0].who} ({winner[0].plan.action})" if winner else "somebody else"
    return (
        f"{by} was faster with change {number} of {model}; nothing was changed here: look at "
        f"`flowsight history {model}` and try again"
    )


def close(registry: Registry, entry: Entry, state: str, note: str = "") -> None:
    """Write how an entry ended."""
    with speaking(registry.uri):
        if note:
            registry.client.set_experiment_tag(entry.experiment_id, "note", note)
        registry.client.set_experiment_tag(entry.experiment_id, "state", state)


def who() -> str:
    """Who asks: the name at the server, or user and machine."""
    name = os.environ.get("MLFLOW_TRACKING_USERNAME") or os.environ.get("FLOWSIGHT_ACTOR")
    try:
        return f"{name or getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a user id without a name
        return f"{os.getuid()}@{socket.gethostname()}"


def _machine() -> str:
    """The machine, and which processes we can see there."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return f"{socket.gethostname()}{space}"


def _holder() -> str:
    import psutil

    pid = os.getpid()
    return f"{_machine()}|{pid}|{psutil.Process(pid).create_time():.2f}"


def is_under_way(entry: Entry) -> bool:
    """Whether somebody may still be moving aliases for it.

    Not after its lease; before, a process of this machine is looked up.
    """
    import psutil

    if entry.state != OPEN or entry.remaining_sec <= 0:
        return False
    machine, _, process = entry.holder.partition("|")
    if machine != _machine():
        return True
    pid, _, start = process.partition("|")
    try:
        found = psutil.Process(int(pid))
        if found.status() == psutil.STATUS_ZOMBIE:  # killed; its parent has not looked yet
            return False
        return abs(found.create_time() - float(start)) < 0.05
    except (psutil.Error, ValueError):
        return False


def line(trail: list[Entry]) -> list[str]:
    """Champions that still count, the first one first: promotions add, rollbacks take away."""
    stack: list[str] = []
    for entry in trail:
        version = entry.plan.champion[1]
        if entry.state != DONE or version is None:
            continue
        if entry.plan.action == "rollback" and version in stack:
            del stack[len(stack) - stack[::-1].index(version) :]
        else:
            stack.append(version)
    return stack
