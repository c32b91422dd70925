"""How the DAGs are set up on this installation: environment variables, read when a file is parsed.

Every variable and its default stands in docs/airflow.md. A wrong value is an import error of the
DAG, shown in the UI, not a surprise at three in the morning.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from airflow.sdk import CronTriggerTimetable

from flowsight import contract
from flowsight.errors import InputError
from flowsight.pipeline import dvc_yaml

ROOT = Path(__file__).resolve().parents[2]
"""The repository that these DAGs were parsed from."""

OWNER = "flowsight"
TAGS = ["flowsight"]


@dataclass(frozen=True)
class Config:
    """The installation's choices."""

    runner: str
    """`bash`: on the worker itself; `kubernetes`: each command in a pod."""
    rev: str
    """Branch or commit that scheduled runs start from."""
    retrain_schedule: str | None
    ingest_schedule: str | None
    drop: str
    """Folder that new videos are dropped into."""
    register: bool
    promotion: str
    """`approval`: a person decides; `automatic`: the gate alone."""
    retry_delay_sec: float
    max_parallel: int
    """Instances of one node that run side by side in a run."""
    results_url: str
    """Where results can be seen, with `{run_id}` and `{commit}`; empty: how to fetch them."""


@cache
def load() -> Config:
    """The configuration of this process.

    Raises:
        InputError: a variable has a value it cannot have.
    """
    return Config(
        runner=_choice("FLOWSIGHT_RUNNER", "bash", "kubernetes"),
        rev=os.environ.get("FLOWSIGHT_REV") or "main",
        retrain_schedule=_schedule("FLOWSIGHT_RETRAIN_SCHEDULE", "@weekly"),
        ingest_schedule=_schedule("FLOWSIGHT_INGEST_SCHEDULE", "@hourly"),
        drop=os.environ.get("FLOWSIGHT_DROP") or "data/drop",
        register=_choice("FLOWSIGHT_REGISTER", "0", "1") == "1",
        promotion=_choice("FLOWSIGHT_PROMOTION", "approval", "automatic"),
        retry_delay_sec=_number("FLOWSIGHT_RETRY_DELAY_SEC", 60),
        max_parallel=int(_number("FLOWSIGHT_MAX_PARALLEL", 16)),
        results_url=os.environ.get("FLOWSIGHT_RESULTS_URL", ""),
    )


def _choice(name: str, default: str, *others: str) -> str:
    value = os.environ.get(name) or default
    if value not in (default, *others):
        raise InputError(f"{name}: expected {' or '.join((default, *others))}, got {value!r}")
    return value


def _schedule(name: str, default: str) -> str | None:
    """A cron expression; `off` for none. Airflow would notice a wrong one only in its scheduler."""
    value = os.environ.get(name) or default
    if not re.fullmatch(r"off|@(hourly|daily|weekly|monthly|quarterly|yearly)|\S+( \S+){4}", value):
        raise InputError(f"{name}: expected @weekly, `0 3 * * 1` or off, got {value!r}")
    return None if value == "off" else value


def clock(schedule: str) -> CronTriggerTimetable:
    """A timetable that waits for its next time, also when a DAG has just been turned on."""
    return CronTriggerTimetable(schedule, timezone="UTC", run_immediately=False)


def _number(name: str, default: float) -> float:
    value = os.environ.get(name) or str(default)
    if not re.fullmatch(r"\d+(\.\d+)?", value) or float(value) == 0:
        raise InputError(f"{name}: expected a number above 0, got {value!r}")
    return float(value)


def choices(group: str) -> list[str]:
    """Names that `<group>=...` takes when parameters are composed: the files of `conf/<group>`."""
    return sorted(file.stem for file in (ROOT / "conf" / group).glob("*.yaml"))


@cache
def params() -> dict[str, object]:
    """`params.yaml` as it stands in the repository: the defaults of the forms."""
    return dvc_yaml.read_yaml(ROOT / "params.yaml")


def systems() -> list[str]:
    """Systems that can be trained: those that the parameters have."""
    return list(params()["systems"])  # type: ignore[call-overload]


def served() -> list[str]:
    """Those of them that can be registered: each has a module that knows how it is served."""
    return [name for name in systems() if name in contract.names()]
