"""A run of `retrain` through its faults, and what is seen meanwhile."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from cluster_processes import Service, kill_all, until
from cluster_topology import BIN, Cluster

from flowsight.pipeline import dvc_yaml

ROOT = Path(__file__).resolve().parents[2]
RUN = "faults"
ENDED = ("success", "failed")


def git(*arguments: str, at: Path) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    done = subprocess.run(
        ["git", *who, *arguments], cwd=at, check=True, capture_output=True, text=True
    )
    return done.stdout


def bare_repository(folder: Path, params: Mapping[str, str]) -> Path:
    """What git would take of this tree, less tests and results, as one commit on `main`.

    Args:
        folder: the repository is `flowsight.git` in it.
        params: text in `params.yaml` -> what stands there instead.
    """
    seed = folder / "seed"
    for name in git("ls-files", "--cached", "--others", "--exclude-standard", at=ROOT).splitlines():
        kept = name != "dvc.lock" and not name.startswith(("tests/", "docs/"))
        if kept and (ROOT / name).is_file():
            (seed / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, seed / name)
    text = (seed / "params.yaml").read_text()
    for old, new in params.items():
        assert old in text, old
        text = text.replace(old, new)
    (seed / "params.yaml").write_text(text)
    git("init", "-q", "-b", "main", at=seed)
    git("add", "-A", at=seed)
    git("commit", "-qm", "everything", at=seed)
    git("clone", "-q", "--bare", str(seed), str(folder / "flowsight.git"), at=folder)
    shutil.rmtree(seed)
    return folder / "flowsight.git"


def checkout(cluster: Cluster) -> Path:
    """A clone at the run's parameters, before its `dvc.lock` was committed."""
    folder = cluster.folder / "one-machine"
    if not folder.exists():
        git("clone", "-q", "-b", f"runs/{RUN}", str(cluster.repo), str(folder), at=cluster.folder)
    return folder


def failures(cluster: Cluster, run: str = RUN) -> str:
    """Logs of the tasks that failed, for the message of an assertion."""
    bad = [t for t in cluster.tasks("retrain", run) if t["state"] in ("failed", "upstream_failed")]
    return "\n".join(
        f"{t['task_id']}[{t['map_index']}] {t['state']}:\n{cluster.task_log(run, t['task_id'])}"
        for t in bad[:3]
    )


# stage commands, noted by the Python processes themselves -----------------------------------------


def events(cluster: Cluster) -> list[dict[str, Any]]:
    """Starts and ends of stage commands."""
    text = (cluster.folder / "count.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def stage_of(root: Path, event: dict[str, Any]) -> str:
    """The stage whose command a process ran."""
    stages = dvc_yaml.load(root).values()
    (name,) = [stage.name for stage in stages if shlex.split(stage.cmd) == event["command"]]
    return name


def running(cluster: Cluster, script: str) -> list[dict[str, Any]]:
    """The starts of a stage script's commands that have not ended."""
    seen = [event for event in events(cluster) if event["command"][1] == f"stages/{script}.py"]
    ended = {event["pid"] for event in seen if event["event"] == "end"}
    return [e for e in seen if e["pid"] not in ended and psutil.pid_exists(e["pid"])]


def wait_in_run(cluster: Cluster, check: Callable[[], bool], what: str) -> None:
    """Wait for something that must happen before the run ends."""
    asked = time.monotonic()

    def happened() -> bool:
        nonlocal asked
        if check():
            return True
        if time.monotonic() - asked > 5:
            asked = time.monotonic()
            assert cluster.run_state("retrain", RUN) not in ENDED, f"no {what}: {failures(cluster)}"
        return False

    until(happened, what, timeout_sec=900, every_sec=0.02)


def wait_until_running(cluster: Cluster, script: str) -> dict[str, Any]:
    """The first command of a stage script that is seen running."""
    found: list[dict[str, Any]] = []

    def seen() -> bool:
        found.extend(running(cluster, script))
        return bool(found)

    wait_in_run(cluster, seen, f"{script} to run")
    return found[0]


def catch_in_the_middle(cluster: Cluster, script: str) -> dict[str, Any]:
    """A command that has kept some of its work and is not done: found, and stopped there."""
    scratch = cluster.folder / "scratch"

    def kept(event: dict[str, Any]) -> bool:
        stage = event["command"][event["command"].index("--stage") + 1]
        return any(p.is_file() and p.name[0] != "." for p in (scratch / stage).rglob("*"))

    found: list[dict[str, Any]] = []

    def caught() -> bool:
        for event in running(cluster, script):
            if kept(event):
                psutil.Process(event["pid"]).suspend()
                if event in running(cluster, script) and kept(event):
                    found.append(event)
                    return True
                psutil.Process(event["pid"]).resume()
        return False

    wait_in_run(cluster, caught, f"{script} in the middle of its work")
    return found[0]


# what a run shows ---------------------------------------------------------------------------------


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
                (entry,) = dvc_yaml.read_yaml(path).values()
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


# faults -------------------------------------------------------------------------------------------


def kill_worker(cluster: Cluster, event: dict[str, Any], *, lose_disk: bool) -> None:
    """`kill -9` of the worker that runs a command, with all below it; then a new one comes up."""
    name = Path(event["home"]).name
    home = str(event["home"])
    killed = cluster.named[name].kill_tree()
    # orphans of the tree (a session of their own) would be gone with the machine, too
    killed += kill_all(lambda process: process.environ().get("HOME") == home)
    assert event["pid"] in killed
    assert not psutil.pid_exists(event["pid"])
    if lose_disk:
        shutil.rmtree(home)
    cluster.start_worker(name, "default,cpu,gpu")


def restart_scheduler(cluster: Cluster) -> None:
    cluster.named["scheduler"].kill_tree()
    cluster.named["scheduler"].start()


def start_elsewhere(cluster: Cluster, stage: str) -> Service:
    """`flowsight run-stage` on a third machine; it waits for whoever has the stage."""
    rev = git("rev-parse", f"runs/{RUN}", at=cluster.repo).strip()
    command = [BIN / "flowsight", "run-stage", stage, "--rev", rev, "--run-id", RUN]
    return cluster.services.start("third", command, cluster.worker_env("three"))
