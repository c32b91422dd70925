"""Runs in MLflow, by way of the tracker's own process."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flowsight import tracking


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FLOWSIGHT_TRACKING", "MLFLOW_TRACKING_URI", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLOWSIGHT_REPO", str(tmp_path))


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(sql).fetchall()


def test_flatten() -> None:
    nested = {"seed": 1, "train": {"lr": 0.1, "milestones": (30, 250)}, "none": None}
    assert tracking.flatten(nested) == {
        "seed": "1",
        "train.lr": "0.1",
        "train.milestones": "(30, 250)",
        "none": "None",
    }


def test_default_store_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking.tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    assert tracking.tracking_uri() == "http://tracker:5000"


@pytest.mark.parametrize("setting", [("FLOWSIGHT_TRACKING", "off"), ("LOCAL_RANK", "1")])
def test_off_starts_nothing(
    setting: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(*setting)
    monkeypatch.setattr(subprocess, "Popen", lambda *_: pytest.fail("started a process"))
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)  # another test may have loaded it
    with tracking.run("x", params={}, tags={}) as log:
        log({"loss": 1.0}, 1)
    assert "mlflow" not in sys.modules and not list(tmp_path.iterdir())


def test_a_tracker_that_dies_harms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    done = 0
    with tracking.run("x", params={}, tags={}) as log:
        for step in range(2000):
            log({"loss": 1.0}, step)
            done += 1
    assert done == 2000


def test_a_tracker_that_hangs_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "sleepy"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with tracking.run("x", params={}, tags={}, wait_sec=0.2) as log:
        log({"loss": 1.0}, 1)
    assert "gave up after 0.2 s" in capfd.readouterr().err


def test_an_error_in_the_block_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ZeroDivisionError), tracking.run("x", params={}, tags={}):
        raise ZeroDivisionError


_TRAIN = """
import os, signal, sqlite3, sys, time
from flowsight import tracking

def stored():
    store = sqlite3.connect(os.environ["FLOWSIGHT_REPO"] + "/mlflow.db")
    try:
        return store.execute("select count(*) from metrics where key like 'system/%'").fetchone()[0]
    except sqlite3.OperationalError:  # its tables are being made
        return 0

with tracking.run(sys.argv[1], params={"train": {"lr": 0.1}}, tags={"dataset": "toy"}) as log:
    for step in range(1, 4):
        log({"loss": 1 / step, "accuracy": 0.5}, step)
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    while sys.argv[2] == "slow" and not stored():
        time.sleep(0.5)
    assert sys.argv[2] != "failed", "as asked for"
"""


def train(name: str, end: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _TRAIN, name, end], stderr=subprocess.DEVNULL)


def wait_until_stored(path: Path, num_runs: int, timeout_sec: float = 120) -> None:
    deadline = time.monotonic() + timeout_sec
    while time.monotonic() < deadline:
        if path.exists():
            try:
                if query(path, "select count(*) from runs where status != 'RUNNING'") == [
                    (num_runs,)
                ]:
                    return
            except sqlite3.OperationalError:
                pass  # its tables are being made
        time.sleep(0.2)
    raise AssertionError("the runs were not stored in time")


@pytest.mark.slow
def test_sqlite_and_several_first_uses_at_once(tmp_path: Path) -> None:
    ends = ["slow", "failed", "killed"]
    trainings = [train(end, end) for end in ends]
    assert [training.wait(300) for training in trainings] == [0, 1, -signal.SIGKILL]
    store = tmp_path / "mlflow.db"
    wait_until_stored(store, 3)
    statuses = dict(query(store, "select name, status from runs"))
    assert statuses == {"slow": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
    run = "(select run_uuid from runs where name = 'slow')"
    points = query(store, f"select step, value from metrics where key='loss' and run_uuid={run}")
    assert sorted(points) == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert query(store, f"select key, value from params where run_uuid={run}") == [
        ("train.lr", "0.1")
    ]
    tags = dict(query(store, f"select key, value from tags where run_uuid={run}"))
    assert tags["dataset"] == "toy" and len(tags["mlflow.source.git.commit"]) == 40
    system = query(
        store, f"select distinct key from metrics where run_uuid={run} and key like 'system/%'"
    )
    assert ("system/cpu_utilization_percentage",) in system
    places = query(store, "select artifact_location from experiments where name='flowsight'")
    assert places == [((tmp_path / "mlruns").as_uri(),)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A real MLflow server on the loopback address."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts")]
    process = subprocess.Popen(
        command,
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5)
                break
            except OSError:
                time.sleep(0.5)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_server(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert train("served", "done").wait(300) == 0
    store = tmp_path / "server.db"
    assert query(store, "select name, status from runs") == [("served", "FINISHED")]
    assert query(store, "select count(*) from metrics where key='loss'") == [(3,)]
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.slow
def test_a_server_that_is_away_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    start = time.monotonic()
    with tracking.run("x", params={"a": 1}, tags={}) as log:
        for step in range(3):
            log({"loss": 1.0}, step)
    assert time.monotonic() - start < 100
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("tracking: ") and line.endswith("the work goes on without it")
