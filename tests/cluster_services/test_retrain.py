"""`retrain` on the real services, through everything that can go wrong, against one machine.

Two Celery workers that share nothing but a DVC remote, a folder of fragments and one of resume
states run the pipeline. Meanwhile one is killed in the middle of optical flow and loses its disk,
one is killed in the middle of a training, the scheduler dies, MLflow is away for a minute, and the
run is triggered a second time. It must end green, with the bytes of `dvc repro` on one machine, and
no stage that was published may have been computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import threading
import time
import urllib.error
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from cluster_processes import Services, kill_all, until
from cluster_topology import BIN, Cluster

from flowsight import pipeline

pytestmark = [
    pytest.mark.services,
    pytest.mark.slow,
    pytest.mark.pipeline,
    pytest.mark.timeout(2400),
]

ROOT = Path(__file__).resolve().parents[2]
RUN = "faults"
# 24 clips in two shards; the three broken files are a larger share of so few. TV-L1 with many warps
# and twelve epochs leave time to be killed in
OVERRIDES = [
    "shards=[0,1]",
    "sample.num_groups=3",
    "sample.num_test_groups=1",
    "sample.clips_per_group=1",
    "dataset.max_quarantined=0.2",
    "flow.method=tvl1",
    "rows.spatial.train.epochs=12",
]
CONF = {"dataset": "sample", "recipe": "smoke", "overrides": "\n".join(OVERRIDES)}
MLFLOW_AWAY_SEC = 60
ENDED = ("success", "failed")


# the repository and the cluster -------------------------------------------------------------------


def git(*arguments: str, at: Path) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    done = subprocess.run(
        ["git", *who, *arguments], cwd=at, check=True, capture_output=True, text=True
    )
    return done.stdout


def bare_repository(folder: Path) -> Path:
    """What git would take of this tree, less tests and results, as one commit on `main`."""
    seed = folder / "seed"
    for name in git("ls-files", "--cached", "--others", "--exclude-standard", at=ROOT).splitlines():
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
    cluster.start_all({"one": "default,cpu,gpu", "two": "default,cpu,gpu"})
    until(lambda: cluster.unpause("retrain"), "retrain to be parsed", timeout_sec=120)
    return cluster


# observers ----------------------------------------------------------------------------------------


def events(cluster: Cluster) -> list[dict[str, Any]]:
    """Starts and ends of stage commands, noted by the Python processes themselves."""
    text = (cluster.folder / "count.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def running(cluster: Cluster, script: str) -> dict[str, Any] | None:
    """The start of a stage's command that has not ended yet."""
    seen = [event for event in events(cluster) if event["command"][1] == f"stages/{script}.py"]
    ended = {event["pid"] for event in seen if event["event"] == "end"}
    alive = [e for e in seen if e["pid"] not in ended and psutil.pid_exists(e["pid"])]
    return alive[0] if alive else None


def wait_until_running(cluster: Cluster, script: str) -> dict[str, Any]:
    """Wait for a stage's command; the run must not end before."""
    found: list[dict[str, Any]] = []

    def started() -> bool:
        event = running(cluster, script)
        if event:
            found.append(event)
        else:
            assert cluster.run_state("retrain", RUN) not in ENDED, failures(cluster)
        return bool(found)

    until(started, f"{script} to run", timeout_sec=900, every_sec=0.2)
    return found[0]


@dataclass
class Visible:
    """Looks all the time at what a run shows: no part of it may ever be half there."""

    cluster: Cluster
    wrong: list[str] = field(default_factory=list)
    checked: set[str] = field(default_factory=set)
    num_fragments: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        while not self.over.wait(1.0):
            self.look()

    def look(self) -> None:
        fragments = sorted((self.cluster.folder / "fragments" / RUN).glob("*.yaml"))
        self.num_fragments = len(fragments)
        for path in fragments:
            try:
                (entry,) = pipeline.read_yaml(path).values()
                for out in entry["outs"]:
                    self.check(out["md5"], f"{path.name}: {out['path']}")
            except Exception as error:
                self.wrong.append(f"{path.name}: {error!r}")

    def check(self, md5: str, where: str) -> None:
        """The object is in the remote, whole, and so is all that a folder lists."""
        if md5 in self.checked:
            return
        content = (self.cluster.folder / "remote/files/md5" / md5[:2] / md5[2:]).read_bytes()
        if hashlib.md5(content).hexdigest() != md5.removesuffix(".dir"):
            self.wrong.append(f"{where}: {md5} holds something else")
        if md5.endswith(".dir"):
            for item in json.loads(content):
                self.check(item["md5"], f"{where}/{item['relpath']}")
        self.checked.add(md5)


def failures(cluster: Cluster) -> str:
    """Logs of the tasks that failed, for the message of an assertion."""
    bad = [t for t in cluster.tasks("retrain", RUN) if t["state"] in ("failed", "upstream_failed")]
    return "\n".join(
        f"{t['task_id']}[{t['map_index']}] {t['state']}:\n{cluster.task_log(RUN, t['task_id'])}"
        for t in bad[:3]
    )


# faults -------------------------------------------------------------------------------------------


def stage_of(root: Path, event: dict[str, Any]) -> str:
    """The stage whose command a process ran."""
    stages = pipeline.load(root).values()
    (name,) = [stage.name for stage in stages if shlex.split(stage.cmd) == event["command"]]
    return name


def kill_worker(cluster: Cluster, event: dict[str, Any], *, lose_disk: bool) -> None:
    """`kill -9` of the worker that runs a command, with all below it; then a new one comes up."""
    name = Path(event["home"]).name
    queues = "default,cpu,gpu"
    # orphans of the tree (a session of their own) would be gone with the machine, too
    killed = cluster.named[name].kill_tree() + kill_tree_of_home(Path(event["home"]))
    assert event["pid"] in killed
    assert not psutil.pid_exists(event["pid"])
    if lose_disk:
        shutil.rmtree(cluster.folder / "homes" / name)
    cluster.start_worker(name, queues)


def kill_tree_of_home(home: Path) -> list[int]:
    """Kill what still has this HOME in its environment."""
    return kill_all(lambda process: process.environ().get("HOME") == str(home))


def restart_scheduler(cluster: Cluster) -> None:
    cluster.named["scheduler"].kill_tree()
    cluster.named["scheduler"].start()


@pytest.fixture(scope="module")
def story(cluster: Cluster) -> Iterator[dict[str, Any]]:
    """The run, with its faults; yields what was seen."""
    seen: dict[str, Any] = {"killed": [], "started": time.monotonic()}
    visible = Visible(cluster)
    watcher = threading.Thread(target=visible.watch, daemon=True)
    watcher.start()
    try:
        cluster.trigger("retrain", RUN, CONF)
        go_through_faults(cluster, seen)
        until(
            lambda: cluster.run_state("retrain", RUN) in ENDED,
            "the run to end",
            timeout_sec=1200,
            every_sec=1,
        )
    finally:
        visible.over.set()
        watcher.join()
    seen["seconds"] = time.monotonic() - seen["started"]
    print(f"\nrun with faults: {seen['seconds']:.0f} s; killed {seen['killed']}")
    visible.look()
    yield {**seen, "visible": visible, "state": cluster.run_state("retrain", RUN)}


def go_through_faults(cluster: Cluster, seen: dict[str, Any]) -> None:
    with pytest.raises(urllib.error.HTTPError, match="409"):
        cluster.trigger("retrain", RUN, CONF)  # the same run again

    event = wait_until_running(cluster, "flow")
    time.sleep(1.5)  # loaded, in the middle of its clips
    kill_worker(cluster, event, lose_disk=True)
    seen["killed"].append(event)
    restart_scheduler(cluster)

    event = wait_until_running(cluster, "train")
    cluster.named["mlflow"].stop()
    away = time.monotonic()

    def state_kept() -> bool:
        """Between two epochs: the state to go on from is there."""
        assert running(cluster, "train"), "trained before it could be killed"
        return any(path.is_file() for path in (cluster.folder / "scratch").rglob("*"))

    until(state_kept, "a training's first epoch", timeout_sec=120, every_sec=0.02)
    event = running(cluster, "train")
    assert event is not None
    kill_worker(cluster, event, lose_disk=False)
    seen["killed"].append(event)

    time.sleep(max(0.0, MLFLOW_AWAY_SEC - (time.monotonic() - away)))
    cluster.start_mlflow()

    # somebody runs a stage of this run by hand while a worker is at it
    event = wait_until_running(cluster, "attention")
    seen["third"] = run_stage_elsewhere(cluster, stage_of(checkout(cluster), event))


def run_stage_elsewhere(cluster: Cluster, stage: str) -> dict[str, Any]:
    """`flowsight run-stage` on a third machine; waits for whoever has the stage."""
    rev = git("rev-parse", f"runs/{RUN}", at=cluster.repo).strip()
    env = cluster.worker_env("three")
    command = [BIN / "flowsight", "run-stage", stage, "--rev", rev, "--run-id", RUN]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def checkout(cluster: Cluster) -> Path:
    """A clone at the run's parameters, before its `dvc.lock` was committed."""
    folder = cluster.folder / "one-machine"
    if not folder.exists():
        git("clone", "-q", "-b", f"runs/{RUN}", str(cluster.repo), str(folder), at=cluster.folder)
    return folder


# what must hold -----------------------------------------------------------------------------------


def test_the_run_ends_green(cluster: Cluster, story: dict[str, Any]) -> None:
    assert story["state"] == "success", failures(cluster)
    assert len(story["killed"]) == 2
    tasks = cluster.tasks("retrain", RUN)
    assert {task["state"] for task in tasks} <= {"success", "skipped"}


def test_nothing_published_is_computed_twice(cluster: Cluster, story: dict[str, Any]) -> None:
    """Each command once; once more for the two that were killed."""
    root = checkout(cluster)
    started = [event for event in events(cluster) if event["event"] == "start"]
    counted = Counter(stage_of(root, event) for event in started)
    expected = Counter(dict.fromkeys(pipeline.load(root), 1))
    expected.update(stage_of(root, event) for event in story["killed"])
    assert counted == expected
    ended = Counter(stage_of(root, e) for e in events(cluster) if e["event"] == "end")
    assert ended == Counter(dict.fromkeys(pipeline.load(root), 1))
    homes = {Path(event["home"]).name for event in started}
    assert homes == {"one", "two"}, "both workers must have worked, the third not"


def test_a_stage_run_by_hand_meanwhile_is_not_computed(story: dict[str, Any]) -> None:
    assert story["third"]["outcome"] == "unchanged"


def test_no_half_output_was_ever_visible(cluster: Cluster, story: dict[str, Any]) -> None:
    visible: Visible = story["visible"]
    assert visible.wrong == []
    assert visible.num_fragments == len(pipeline.load(checkout(cluster)))
    assert len(visible.checked) > visible.num_fragments


def test_a_training_goes_on_and_is_recorded_when_mlflow_is_back(
    cluster: Cluster, story: dict[str, Any]
) -> None:
    cluster.wait_mlflow()
    runs = cluster.mlflow_runs()
    finished = {run["info"]["run_name"] for run in runs if run["info"]["status"] == "FINISHED"}
    assert {"spatial_attended-1", "temporal_attended-1"} <= {n.split("@")[-1] for n in finished}


def test_same_bytes_as_on_one_machine(cluster: Cluster, story: dict[str, Any]) -> None:
    """`dvc repro` at the same parameters, with an empty cache of its own."""
    root = checkout(cluster)
    env = {**cluster.base_env(cluster.folder / "homes" / "alone"), "FLOWSIGHT_TRACKING": "off"}
    env.pop("PYTHONPATH")
    env["DVC_SITE_CACHE_DIR"] = str(cluster.folder / "homes/alone/dvc-site")
    shutil.copy(compiled_engine(), root / "src/flowsight/flow")
    start = time.monotonic()
    subprocess.run([BIN / "dvc", "repro", "-q"], cwd=root, env=env, check=True)
    print(f"\ndvc repro on one machine: {time.monotonic() - start:.0f} s")
    gathered = git("show", f"runs/{RUN}:dvc.lock", at=cluster.repo)
    assert (root / "dvc.lock").read_text() == gathered
    fetched = fetch_results(cluster)
    ours, theirs = hashes(root / "results"), hashes(fetched / "results")
    assert len(ours) > 5
    assert theirs == ours


def compiled_engine() -> Path:
    from flowsight.flow import tvl1_library

    (found,) = Path(tvl1_library.__file__).parent.glob("_tvl1*.so")
    return found


def fetch_results(cluster: Cluster) -> Path:
    """The run's results as anybody fetches them: a clone of its branch and `dvc pull`."""
    folder = cluster.folder / "fetched"
    git("clone", "-q", "-b", f"runs/{RUN}", str(cluster.repo), str(folder), at=cluster.folder)
    env = cluster.worker_env("reader")
    pull = [BIN / "dvc", "pull", "-q", "evaluate@two_stream", "report"]
    subprocess.run(pull, cwd=folder, env=env, check=True)
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".gitignore"
    }


def test_nothing_outlives_the_cluster(tmp_path: Path) -> None:
    """A process in a session of its own below a service goes with it."""
    services = Services(tmp_path)
    code = (
        "import subprocess, time;"
        "subprocess.Popen(['sleep', '600'], start_new_session=True); time.sleep(600)"
    )
    service = services.start("parent", [BIN / "python", "-c", code], dict(os.environ))
    until(lambda: bool(psutil.Process(service.pid).children()), "the child", timeout_sec=30)
    (child,) = psutil.Process(service.pid).children()
    assert services.close() == [child.pid]
    assert not psutil.pid_exists(child.pid) or child.status() == psutil.STATUS_ZOMBIE
