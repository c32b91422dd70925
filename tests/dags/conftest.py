"""Airflow for tests: a home, a database and a DAG folder of its own, and a `flowsight` that obeys.

Airflow reads its settings when it is first imported, so they are set here, before any test of this
folder imports it; nothing of it is imported while tests are collected.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOME = Path(tempfile.gettempdir()) / f"flowsight-test-airflow-{os.getpid()}"

os.environ.update(
    AIRFLOW_HOME=str(HOME),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__DAGS_FOLDER=str(HOME / "repository" / "dags"),
    AIRFLOW__CORE__UNIT_TEST_MODE="False",
    AIRFLOW__LOGGING__LOGGING_LEVEL="WARNING",
    FLOWSIGHT_RETRY_DELAY_SEC="0.01",
)
for name in ("RUNNER", "REGISTER", "PROMOTION", "NOTIFY", "POD_CONFIG", "RETRAIN_SCHEDULE"):
    os.environ.pop(f"FLOWSIGHT_{name}", None)

# a pipeline with one of each: a plain stage, a written-out foreach, one from parameters
PIPELINE = """
stages:
  make:
    foreach: ${shards}
    do:
      cmd: make
      deps: [checked/first]
      outs: ['made/${item}']
      meta: {group: data, gpus: 0, memory_gb: 1, timeout_min: 5, queue: cpu, retries: 2}
  check:
    foreach: {first: raw, second: made}
    do:
      cmd: check
      deps: ['${item}']
      outs: ['checked/${key}']
      meta: {group: data, gpus: 0, memory_gb: 1, timeout_min: 5, queue: cpu, retries: 1}
  fit:
    foreach: ${fits}
    do:
      cmd: fit
      deps: [checked/second]
      outs: ['fitted/${item}']
      meta: {group: two_stream, gpus: 2, memory_gb: 8, timeout_min: 5, queue: gpu, retries: 2}
  show:
    cmd: show
    deps: [fitted]
    outs: [shown]
    meta: {group: report, gpus: 0, memory_gb: 1, timeout_min: 5, queue: cpu, retries: 0}
"""
PREPARED = {
    "run_id": "r1",
    "rev": "abc123",
    "groups": {
        "make": ["make@0", "make@1"],
        "check": ["check@first", "check@second"],
        "fit": ["fit@spatial-1"],
        "show": ["show"],
    },
}
GATHERED = {"run_id": "r1", "rev": "abc123", "commit": "def456def456def", "stages": 6}

FAKE = """#!{python} -IS
import json, os, pathlib, signal, sys, time
arguments = sys.argv[1:]
if arguments[0] == "at":
    arguments = arguments[2:]
folder = pathlib.Path({folder!r})
with open(folder / "calls", "a") as file:
    file.write(json.dumps(arguments) + "\\n")
name = arguments[1] if arguments[0] == "run-stage" else arguments[0]
if name in ("promote", "register"):
    name += "-" + arguments[1]
if arguments[-1] == "--dry-run":
    name += "-dry"
plan = folder / (name + ".exit")
codes = plan.read_text().split() if plan.exists() else []
code = int(codes.pop(0)) if codes else 0
if plan.exists():
    plan.write_text(" ".join(codes))
print("working on", name, file=sys.stderr)
if code < 0:
    os.kill(os.getpid(), -code)
if code:
    print("error: expected sense in", name, file=sys.stderr)
    raise SystemExit(code)
answer = folder / (name + ".json")
print("some progress")
print(answer.read_text() if answer.exists() else json.dumps(dict(stage=name, outcome="ran")))
"""


@dataclass(frozen=True)
class Fake:
    """Controls of the `flowsight` command that the tasks find on the PATH."""

    folder: Path

    def answer(self, name: str, value: Any) -> None:
        """What a command prints: an object as JSON, or text."""
        text = value if isinstance(value, str) else json.dumps(value)
        (self.folder / f"{name}.json").write_text(text)

    def exits(self, name: str, *codes: int) -> None:
        """Exit codes of its next calls (negative: a signal), 0 after those."""
        (self.folder / f"{name}.exit").write_text(" ".join(map(str, codes)))

    @property
    def calls(self) -> list[list[str]]:
        """Arguments of every call so far."""
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def ran(self, name: str) -> int:
        """How often a stage was run."""
        return sum(call[:2] == ["run-stage", name] for call in self.calls)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """A `flowsight` that does as told, first on the PATH."""
    folder = tmp_path / "fake"
    (folder / "bin").mkdir(parents=True)
    script = folder / "bin" / "flowsight"
    script.write_text(FAKE.format(python=sys.executable, folder=str(folder)))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    made = Fake(folder)
    made.answer("prepare", PREPARED)
    made.answer("gather", GATHERED)
    return made


def copy_repository(target: Path, pipeline: str = PIPELINE, **params: Any) -> Path:
    """The DAG files beside another `dvc.yaml`."""
    shutil.copytree(ROOT / "dags", target / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "conf", target / "conf")
    (target / "dvc.yaml").write_text(pipeline)
    values = {
        "shards": [0, 1],
        "fits": ["spatial-1"],
        "dataset": {"name": "sample"},
        "recipe": "sample",
        "systems": {"two_stream": {"rows": {"spatial": {}}}, "residual3d": {"rows": {"r3d": {}}}},
    }
    (target / "params.yaml").write_text(json.dumps({**values, **params}))
    return target


def load_dags(root: Path) -> dict[str, Any]:
    """The DAGs of a repository, parsed anew with the environment as it is now."""
    from airflow.dag_processing.dagbag import BundleDagBag

    for name in [name for name in sys.modules if name.split(".")[0] == "flowsight_dags"]:
        del sys.modules[name]
    folder = root / "dags"
    # as the bundle's folder is in Airflow's own processes
    sys.path[:] = [str(folder), *(entry for entry in sys.path if not entry.endswith("/dags"))]
    bag = BundleDagBag(folder, bundle_path=folder, bundle_name="dags-folder")
    if bag.import_errors:
        raise ImportError("\n".join(bag.import_errors.values()))
    return bag.dags


@pytest.fixture(scope="session", autouse=True)
def airflow_home() -> Iterator[None]:
    """The folder goes when the tests are done."""
    yield
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def airflow_database() -> Path:
    """A fresh database, and the repository that Airflow knows as its DAG folder."""
    HOME.mkdir(parents=True, exist_ok=True)  # importing Airflow makes it
    copy_repository(HOME / "repository")
    from airflow.models import Pool
    from airflow.utils.db import initdb

    initdb()
    Pool.create_or_update_pool("gpu", 2, "", False)
    return HOME / "repository"


@pytest.fixture
def dags(airflow_database: Path) -> dict[str, Any]:
    """The DAGs over the small pipeline, ready to run."""
    return load_dags(airflow_database)


@pytest.fixture(scope="module")
def real_dags() -> Iterator[dict[str, Any]]:
    """The DAGs of this repository."""
    yield load_dags(ROOT)


def states(run: Any) -> dict[str, str]:
    """State of each task of a run; of a mapped one, `task[0]`."""
    return {
        ti.task_id if ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]": str(ti.state)
        for ti in run.get_task_instances()
    }
