"""All DVC commands of a stage share one process; what becomes of it decides the exit code."""

from __future__ import annotations

import time
from typing import Any

import psutil
import pytest

Toy = Any  # tests/cluster/conftest.py

pytestmark = pytest.mark.slow


def servers(pid: int) -> list[psutil.Process]:
    """The processes below a worker that run DVC."""
    below = psutil.Process(pid).children(recursive=True)
    return [one for one in below if any(part.endswith("dvc_server.py") for part in one.cmdline())]


def start(toy: Toy, worker: Any) -> Any:
    """A worker in the middle of the stage `list`, which fetches before it runs."""
    rev = worker.answer("prepare", "--run-id", "r1")["rev"]
    worker.stage("raw", rev, "r1")
    process = worker.start("run-stage", "list", "--rev", rev, "--run-id", "r1")
    end = time.monotonic() + 60
    while "list" not in toy.executed():
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    return process


def test_a_killed_dvc_is_worth_a_retry(toy: Toy) -> None:
    worker = toy.worker("a")
    (toy.trap / "list").write_text("sleep 1000")
    process = start(toy, worker)
    guard, dvc = servers(process.pid)  # the guard's arguments hold the command
    command = [one for one in dvc.children(recursive=True) if "sleep" in one.name()]
    assert guard.pid == dvc.ppid() and command
    dvc.kill()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "dvc was killed by signal 9; run again" in err.splitlines()[-1]
    assert not psutil.wait_procs(command, timeout=10)[1]
    assert not (toy.root / "runs/r1/list.yaml").exists()


def test_what_a_command_leaves_behind_ends_with_it(toy: Toy) -> None:
    """Also in a session of its own: it must not hold a GPU that the next stage gets."""
    worker = toy.worker("a")
    note = toy.root / "left"
    (toy.trap / "list").write_text(f'setsid sleep 1000 >&- 2>&- & echo $! > "{note}"; sleep 2')
    process = start(toy, worker)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert '"ran"' in out.splitlines()[-1]
    assert "Running stage 'list'" in err
    assert not psutil.pid_exists(int(note.read_text()))
