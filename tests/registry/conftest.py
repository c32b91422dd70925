"""A real MLflow server of its own, and models small enough to be made by the dozen."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest

from flowsight.registry import candidate, store
from flowsight.registry.candidate import Candidate, Registered, Served
from flowsight.registry.evidence import Evidence

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY_ID = "a" * 40
LABELS = ("Up", "Down")

# what it predicts is written in its weights; no flowsight, so that it loads fast
MODEL = """
import json
import mlflow
import pandas as pd

class Tiny(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        with open(context.artifacts["weights"]) as file:
            self.answers = json.load(file)

    def predict(self, context, model_input, params=None):
        names = [str(path) for path in model_input["video"]]
        return pd.DataFrame({"label": [self.answers.get(name, "Up") for name in names]})

mlflow.models.set_model(Tiny())
"""


def start_server(folder: Path, port: int, *options: str) -> subprocess.Popen[bytes]:
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"),
        *("--port", str(port), "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
        *("--artifacts-destination", str(folder / "artifacts"), *options),
    ]
    variables = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    variables.pop("MLFLOW_TRACKING_URI", None)
    log = (folder / "log").open("ab")
    server = subprocess.Popen(
        command, stdout=log, stderr=log, env=variables, cwd=folder, start_new_session=True
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
            return server
        except OSError:
            time.sleep(0.2)
    stop_server(server)
    raise AssertionError((folder / "log").read_text()[-2000:])


def stop_server(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="session")
def server_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that all tests share; each has models of its own."""
    port = free_port()
    server = start_server(tmp_path_factory.mktemp("mlflow"), port)
    yield f"http://127.0.0.1:{port}"
    stop_server(server)


def clip_table(tested: Sequence[str], learnt: Sequence[str]) -> pd.DataFrame:
    rows = [(clip, "test") for clip in tested] + [(clip, "train") for clip in learnt]
    return pd.DataFrame(
        {
            "item_id": [clip for clip, _ in rows],
            "subset": [subset for _, subset in rows],
            "label": [clip.split("/")[0] for clip, _ in rows],
            "path": [f"videos/{clip}.avi" for clip, _ in rows],
            "sha256": [f"hash of {clip}" for clip, _ in rows],
        }
    )


TESTED = tuple(f"{LABELS[i % 2]}/t{i:02d}" for i in range(40))
LEARNT = tuple(f"{LABELS[i % 2]}/l{i:02d}" for i in range(20))


@dataclass
class World:
    """A registry, a model's name of one's own, and a way to make versions of it."""

    registry: store.Registry
    folder: Path
    model: str
    counter: int = 0
    tags: dict[str, str] = field(default_factory=dict)

    def candidate(
        self,
        right: int = 36,
        *,
        tested: Sequence[str] = TESTED,
        learnt: Sequence[str] = LEARNT,
        checkpoint: str | None = None,
        **tags: str,
    ) -> Candidate:
        """One that gets the first `right` of its test clips right."""
        self.counter += 1
        clips = clip_table(tested, learnt)
        own = clips[clips["subset"] == "test"]
        hit = [i < right for i in range(len(own))]
        other = {LABELS[0]: LABELS[1], LABELS[1]: LABELS[0]}
        predicted = [x if h else other[x] for x, h in zip(own["label"], hit, strict=True)]
        scores = pd.DataFrame(
            {
                "item_id": own["item_id"],
                "label": own["label"],
                "predicted": predicted,
                "score": [1.0 if h else 0.0 for h in hit],
                "prob_Up": [0.9 if p == "Up" else 0.1 for p in predicted],
                "prob_Down": [0.1 if p == "Up" else 0.9 for p in predicted],
            }
        ).reset_index(drop=True)
        accuracy = f"{right / max(len(own), 1):.6f}"
        basic = {
            "repository": REPOSITORY_ID,
            "git_commit": "c" * 40,
            "system": "two_stream",
            "data_gate": "passed",
            "size_bytes": "1000000",
            "data_path": "data/raw/toy",
            "dataset": "toy",
            **dict.fromkeys(("top1", "top5", "mean_class"), accuracy),
        }
        return Candidate(
            name=self.model,
            checkpoint=checkpoint or f"checkpoint-{self.counter}-{uuid.uuid4().hex[:8]}",
            tags={**basic, **self.tags, **tags},
            params={"seed": 1, "train": {"lr": 0.1}},
            metrics={"fused/top1": float(accuracy)},
            items=clips,
            scores=scores,
        )

    def served(self, answers: str = "{}") -> Served:
        code, weights = self.folder / "tiny.py", self.folder / "weights.json"
        code.write_text(MODEL)
        weights.write_text(answers)
        return Served(
            code=code,
            artifacts={"weights": weights},
            requirements=["mlflow==3.17.2"],
            example=pd.DataFrame({"video": ["a"]}),
        )

    def publish(self, right: int = 36, answers: str = "{}", **changes: object) -> Registered:
        made = self.candidate(right, **changes)  # type: ignore[arg-type]
        return candidate.publish(self.registry, made, lambda: self.served(answers))

    def aliases(self) -> dict[str, str]:
        return self.registry.aliases(self.model)


@pytest.fixture
def connected(server_uri: str, monkeypatch: pytest.MonkeyPatch) -> store.Registry:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server_uri)
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    return store.connect()


@pytest.fixture
def world(connected: store.Registry, tmp_path: Path) -> World:
    return World(connected, tmp_path, f"toy_{uuid.uuid4().hex[:10]}")


@pytest.fixture
def promote(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """`promoting.promote` at this repository, which calls itself by the toy's id.

    Models are not loaded to be timed, which takes seconds each; one test does.
    """
    from flowsight.registry import locks, model_answers, promoting

    monkeypatch.setattr(locks, "repository_id", lambda root: REPOSITORY_ID)
    monkeypatch.setattr(model_answers, "latency", lambda registry, model, times: 0.01)

    def call(model: str, **options: object) -> object:
        return promoting.promote(model, root=ROOT, **options)  # type: ignore[arg-type]

    return call


@pytest.fixture
def evidence_of(tmp_path: Path) -> Callable[..., Evidence]:
    """What the registry would say of a version; its arguments are those of `World.candidate`."""

    def make(right: int = 36, version: str = "1", **changes: object) -> Evidence:
        made = World(None, tmp_path, "toy").candidate(right, **changes)  # type: ignore[arg-type]
        return Evidence(
            model="toy", version=version, tags=made.tags, items=made.items, scores=made.scores
        )

    return make
