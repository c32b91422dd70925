"""`retrain` on the real services: one calm run, one through everything that can go wrong."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_processes import Services, until
from cluster_topology import BIN, Cluster

from flowsight import pipeline

pytestmark = [pytest.mark.slow, pytest.mark.pipeline]

ROOT = Path(__file__).resolve().parents[2]
# 24 clips in two shards, three epochs; the three broken files are a larger share of so few
OVERRIDES = [
    "shards=[0,1]",
    "sample.num_groups=3",
    "sample.num_test_groups=1",
    "sample.clips_per_group=1",
    "dataset.max_quarantined=0.2",
    "rows.spatial.train.epochs=3",
]


def git(*arguments: str, at: Path) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    command = ["git", *who, *arguments]
    return subprocess.run(
        command, cwd=at, check=True, capture_output=True, text=True
    ).stdout.strip()


def bare_repository(folder: Path) -> Path:
    """What git would take of this tree, less tests and results, as one commit on `main`."""
    seed = folder / "seed"
    names = git("ls-files", "--cached", "--others", "--exclude-standard", at=ROOT).splitlines()
    for name in names:
        kept = name != "dvc.lock" and not name.startswith(("tests/", "docs/"))
        if kept and (ROOT / name).is_file():
            (seed / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, seed / name)
    git("init", "-q", "-b", "main", at=seed)
    git("add", "-A", at=seed)
    git("commit", "-qm", "everything", at=seed)
    git("clone", "-q", "--bare", str(seed), str(folder / "flowsight.git"), at=folder)
    shutil.rmtree(seed)
    return folder / "flowsight.git"


@pytest.fixture(scope="module")
def cluster(services: Services) -> Cluster:
    """Two workers, each on a machine of its own as far as files go."""
    folder = services.folder
    extra = {
        "PYTHONPATH": str(Path(__file__).parent / "counting"),
        "FLOWSIGHT_TEST_COUNT": str(folder / "count.jsonl"),
    }
    (folder / "count.jsonl").touch()
    cluster = Cluster(services, folder, bare_repository(folder), extra)
    start = time.monotonic()
    cluster.start_all({"one": "default,cpu,gpu", "two": "default,cpu,gpu"})
    until(lambda: cluster.unpause("retrain"), "retrain to be parsed", timeout_sec=90)
    print(f"\ncluster up in {time.monotonic() - start:.0f} s")
    return cluster


def events(cluster: Cluster) -> list[dict[str, Any]]:
    text = (cluster.folder / "count.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def executed(cluster: Cluster, since: int, run_id: str) -> Counter[str]:
    """How often each stage's command was started, by an observer in the Python processes."""
    by_command = {
        tuple(shlex.split(stage.cmd)): stage.name for stage in stages_of(cluster, run_id).values()
    }
    started = [event for event in events(cluster)[since:] if event["event"] == "start"]
    return Counter(by_command[tuple(event["command"])] for event in started)


def stages_of(cluster: Cluster, run_id: str) -> dict[str, pipeline.Stage]:
    folder = cluster.folder / f"stages-{run_id}"
    if not folder.exists():
        git("clone", "-qb", f"runs/{run_id}", str(cluster.repo), str(folder), at=cluster.folder)
    return pipeline.load(folder)


def wait_for_run(cluster: Cluster, run_id: str, timeout_sec: float = 600) -> None:
    """Wait until a run ends; a failure shows the logs of the tasks that failed."""

    def over() -> bool:
        return cluster.run_state("retrain", run_id) in ("success", "failed")

    until(over, f"run {run_id} to end", timeout_sec=timeout_sec, every_sec=1)
    bad = [t for t in cluster.tasks("retrain", run_id) if t["state"] not in ("success", "skipped")]
    shown = "\n".join(
        f"{t['task_id']}[{t['map_index']}] {t['state']}:\n{cluster.task_log(run_id, t['task_id'])}"
        for t in bad[:3]
    )
    assert cluster.run_state("retrain", run_id) == "success", shown


def conf(*more: str, **values: Any) -> dict[str, Any]:
    overrides = "\n".join([*OVERRIDES, *more])
    return {"dataset": "sample", "recipe": "smoke", "overrides": overrides, **values}


@pytest.fixture(scope="module")
def calm(cluster: Cluster) -> str:
    """A run in which nothing goes wrong."""
    start = time.monotonic()
    cluster.trigger("retrain", "calm", conf())
    wait_for_run(cluster, "calm")
    print(f"calm run {time.monotonic() - start:.0f} s")
    return "calm"


def test_a_calm_run_executes_every_command_once(cluster: Cluster, calm: str) -> None:
    assert executed(cluster, 0, calm) == Counter(dict.fromkeys(stages_of(cluster, calm), 1))
    homes = {event["home"] for event in events(cluster)}
    assert homes == {str(cluster.folder / "homes" / name) for name in ("one", "two")}
