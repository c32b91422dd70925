"""A small pipeline with the shapes of the real one, a bare repository, a remote, two workers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flowsight.pipeline import composing

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

# a folder that several stages write into, a file inside an output, a parameter, a gate
PIPELINE = """
stages:
  raw:
    cmd: ./step raw && mkdir -p data/raw/sample && echo ${sample.seed} > data/raw/sample/x
    deps: [step]
    params: [sample.seed]
    outs: [data/raw/sample]
    meta: {group: data, gpus: 0}
  list:
    cmd: >-
      ./step list && mkdir -p data/list && cp data/raw/sample/x data/list/passed
      && echo 1 > data/list/other
    deps: [data/raw/sample]
    outs: [data/list]
  frames:
    foreach: ${shards}
    do:
      cmd: >-
        ./step frames@${item} && mkdir -p data/frames/${item}
        && cat data/list/passed > data/frames/${item}/f && echo ${item} >> data/frames/${item}/f
      deps: [data/list/passed]
      params: [frames.quality]
      outs:
        - data/frames/${item}
  train:
    foreach: ${instances.train}
    do:
      cmd: >-
        ./step train@${key} && mkdir -p checkpoints/${key}
        && cat data/frames/*/f > checkpoints/${key}/model
        && echo ${item.row} >> checkpoints/${key}/model
      deps: [data/frames, data/list/passed]
      params: [seed]
      outs:
        - checkpoints/${key}
      meta: {group: two_stream, gpus: 1}
  report:
    cmd: ./step report && mkdir -p results && cat checkpoints/*/model > results/report.txt
    deps:
      - checkpoints
      - step
    outs: [results/report.txt]
"""
STEP = """#!/bin/sh
echo "$1" >> "$TOY_LOG"
if [ -n "$TOY_TRAP" ] && [ -f "$TOY_TRAP/$1" ]; then . "$TOY_TRAP/$1"; fi
"""
STAGES = [
    *("raw", "list", "frames@0", "frames@1"),
    *("train@spatial-1", "train@temporal-1", "report"),
]


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-3000:])
    return done.stdout.strip()


@dataclass
class Worker:
    """A machine of its own: home, cache and scratch are nobody else's."""

    home: Path
    toy: Toy
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.home),
            "FLOWSIGHT_WORK": str(self.home / "work"),
            "FLOWSIGHT_REPO": str(self.toy.repo),
            "FLOWSIGHT_RUNS": str(self.toy.root / "runs"),
            "FLOWSIGHT_SCRATCH": str(self.toy.root / "scratch"),
            "FLOWSIGHT_GPU_LEASES": str(self.home / "gpus"),
            "FLOWSIGHT_GPUS": "",
            "FLOWSIGHT_TRACKING": "off",
            "DVC_GLOBAL_CONFIG_DIR": str(self.toy.root / "dvc-config"),
            "TOY_LOG": str(self.toy.log),
            "TOY_TRAP": str(self.toy.trap),
            **self.extra,
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [BIN / "flowsight", *arguments],
            cwd=self.home,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    def answer(self, *arguments: str) -> dict[str, Any]:
        code, out, err = self.call(*arguments)
        assert code == 0, (arguments, out[-1500:], err[-3000:])
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found

    def stage(self, name: str, rev: str, run_id: str, *more: str) -> dict[str, Any]:
        return self.answer("run-stage", name, "--rev", rev, "--run-id", run_id, *more)


@dataclass
class Toy:
    """The repository, its DVC remote and what all workers share."""

    root: Path
    stages = STAGES

    @property
    def repo(self) -> Path:
        return self.root / "repo.git"

    @property
    def source(self) -> Path:
        """A clone in which a person works."""
        return self.root / "source"

    @property
    def log(self) -> Path:
        """A line for each executed command."""
        return self.root / "log"

    @property
    def trap(self) -> Path:
        """Shell snippets that run inside a stage's command."""
        return self.root / "trap"

    def worker(self, name: str, **extra: str) -> Worker:
        home = self.root / name
        home.mkdir(exist_ok=True)
        return Worker(home, self, extra)

    def executed(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []

    def config(self, text: str) -> None:
        (self.root / "dvc-config").mkdir(exist_ok=True)
        (self.root / "dvc-config" / "config").write_text(text)

    def run(self, *command: str | Path, cwd: Path, **env: str) -> str:
        """A command as on a person's machine."""
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        own = {"TOY_LOG": str(self.root / "own-log"), "TOY_TRAP": "", "PATH": path}
        return run("env", *command, cwd=cwd, env={**os.environ, **own, **env})

    def in_repo(self, path: str, rev: str) -> str:
        """A file of the bare repository at a revision."""
        return run("git", "show", f"{rev}:{path}", cwd=self.repo)

    def commit(self, message: str) -> str:
        run("git", "add", "-A", cwd=self.source)
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        run("git", *who, "commit", "-qm", message, cwd=self.source)
        run("git", "push", "-q", "origin", "HEAD:main", cwd=self.source)
        return run("git", "rev-parse", "HEAD", cwd=self.source)


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`conf/` with one of the systems, and the parameters that it makes for two shards."""
    folder = tmp_path_factory.mktemp("settings")
    shutil.copytree(ROOT / "conf", folder / "conf")
    start = (folder / "conf/config.yaml").read_text()
    others = r"(?m)^  - systems/(?!two_stream:).*\n"
    assert len(re.findall(others, start)) == 3
    (folder / "conf/config.yaml").write_text(re.sub(others, "", start))
    composing.compose(["shards=[0,1]"], root=folder)
    return folder


@pytest.fixture
def toy(tmp_path: Path, settings: Path) -> Toy:
    """A pushed repository with the small pipeline and a folder as its DVC remote."""
    made = Toy(tmp_path)
    made.trap.mkdir()
    source = made.source
    source.mkdir()
    shutil.copytree(settings / "conf", source / "conf")
    shutil.copy(settings / "params.yaml", source)
    shutil.copy(ROOT / ".gitignore", source)
    (source / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc/config", source / ".dvc")
    (source / "dvc.yaml").write_text(PIPELINE)
    (source / "step").write_text(STEP)
    (source / "step").chmod(0o755)
    (source / ".gitignore").open("a").write("/data/list\n/data/frames\n")
    run("git", "init", "-q", "--bare", "-b", "main", made.repo, cwd=tmp_path)
    run("git", "init", "-q", "-b", "main", cwd=source)
    run("git", "remote", "add", "origin", made.repo, cwd=source)
    made.config(f"[core]\n    remote = store\n['remote \"store\"']\n    url = {tmp_path}/store\n")
    made.commit("a small pipeline")
    return made
