"""Trainings that only log, as processes that can be killed, and what MLflow has then."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ..registry.conftest import free_port, start_server, stop_server

# logs an epoch for each line that it reads; the word `die` kills it
TRAINING = """
import os, signal, sys
from flowsight import tracking

name = sys.argv[1]
with tracking.run(name, params={"train": {"lr": 0.1}}, tags={"dataset": "toy"}) as log:
    print("ready", flush=True)
    for epoch, line in enumerate(sys.stdin, start=1):
        if line.strip() == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        log({"loss": 1 / epoch, "accuracy": epoch / 100}, epoch)
        print(epoch, flush=True)
"""


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything below the test's own folder, and nothing turned off."""
    for name in (
        *("FLOWSIGHT_TRACKING", "FLOWSIGHT_RUN_ID", "FLOWSIGHT_SCRATCH", "MLFLOW_TRACKING_URI"),
        *("RANK", "LOCAL_RANK", "NODE_RANK", "MLFLOW_TRACKING_USERNAME"),
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLOWSIGHT_REPO", str(tmp_path))


@dataclass
class Training:
    """A process that logs an epoch when it is told to."""

    process: subprocess.Popen[str]

    def epochs(self, count: int = 1) -> None:
        """Let it log some epochs; it has when this returns."""
        assert self.process.stdin is not None and self.process.stdout is not None
        for _ in range(count):
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
            assert self.process.stdout.readline().strip().isdigit()

    def die(self) -> None:
        """Have it killed, as by the system."""
        self.process.communicate("die\n", timeout=60)

    def end(self) -> str:
        """Let it end by itself; what it wrote on stderr."""
        _, said = self.process.communicate(timeout=200)
        assert self.process.returncode == 0, said
        return said


@pytest.fixture
def train() -> Iterator[Callable[..., Training]]:
    """Starts trainings; ends those that a test left."""
    started = []

    def start(name: str, **variables: str) -> Training:
        process = subprocess.Popen(
            [sys.executable, "-c", TRAINING, name],
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        return Training(process)

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


@dataclass
class Store:
    """An SQLite file of MLflow's, read without it."""

    path: Path

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows; none while the tables are being made."""
        if not self.path.exists():
            return []
        with closing(sqlite3.connect(self.path, timeout=20)) as database:
            try:
                return database.execute(sql).fetchall()
            except sqlite3.OperationalError:
                return []

    def runs(self) -> dict[str, str]:
        """Name -> status of the runs that are there, each name once."""
        rows = self.query("select name, status from runs where lifecycle_stage = 'active'")
        assert len(rows) == len(dict(rows)), rows
        return dict(rows)

    def losses(self, name: str) -> list[tuple[int, int]]:
        """Epoch and time in ms of every stored loss of a run, in order."""
        return self.query(
            "select step, timestamp from metrics join runs using (run_uuid) "
            f"where key = 'loss' and name = '{name}' order by step, timestamp"
        )

    def wait_for(self, is_so: Callable[[], bool], timeout_sec: float = 120) -> None:
        """Until something is so; else what there is is in the message."""
        deadline = time.monotonic() + timeout_sec
        while not is_so():
            assert time.monotonic() < deadline, (self.runs(), self.query("select * from metrics"))
            time.sleep(0.2)


class Server:
    """A real MLflow server on the loopback address, that can go away and come back."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.store = Store(folder / "mlflow.db")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin to answer, if it does not."""
        if self._process is None:
            self._process = start_server(self.folder, self.port)

    def stop(self) -> None:
        """No longer answer."""
        if self._process is not None:
            stop_server(self._process)
            self._process = None


@pytest.fixture(scope="session")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Shared by all tests, for it takes ten seconds to start."""
    made = Server(tmp_path_factory.mktemp("server"))
    yield made
    made.stop()


@pytest.fixture
def server(one_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, answering; runs of other tests are in it too."""
    one_server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", one_server.url)
    return one_server


def spools(folder: Path) -> list[Path]:
    """What waits below a repository."""
    return sorted((folder / "build/scratch/.tracking").glob("*.jsonl"))
