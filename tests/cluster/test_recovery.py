"""Whatever dies: nothing half is seen, nothing is computed by two, the next try goes on."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

Toy = Any  # tests/cluster/conftest.py


@pytest.fixture
def run(toy: Toy) -> tuple[Any, str]:
    """A worker and the commit of a prepared run."""
    worker = toy.worker("a")
    return worker, worker.answer("prepare", "--run-id", "r1")["rev"]


def wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def trap(toy: Toy, stage: str, text: str) -> Path:
    path: Path = toy.trap / stage
    path.write_text(text)
    return path


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def arguments(rev: str) -> list[str]:
    return ["run-stage", "raw", "--rev", rev, "--run-id", "r1"]


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_kill_leaves_no_process_and_no_half_result(toy: Toy, run: Any, number: int) -> None:
    worker, rev = run
    hold = trap(toy, "raw", "sleep 1000")
    process = worker.start(*arguments(rev))
    wait_for(lambda: "raw" in toy.executed())
    below = descendants(process.pid)
    assert any("sleep" in " ".join(child.cmdline()) for child in below)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == (-9 if number == signal.SIGKILL else 75)
    psutil.wait_procs(below, timeout=10)
    assert not [child for child in below if child.is_running()]
    assert not (toy.root / "runs/r1/raw.yaml").exists()
    if number != signal.SIGKILL:
        assert not (toy.root / "a/work/trees/r1").exists()
    hold.unlink()
    started = time.monotonic()
    assert worker.stage("raw", rev, "r1")["outcome"] == "ran"
    assert time.monotonic() - started < 40, "a dead worker of this place was waited for"
    assert toy.executed() == ["raw", "raw"]


def test_two_at_once_compute_once(toy: Toy, run: Any) -> None:
    """Two tasks of one workplace, and a third of another host that only shares the store."""
    worker, rev = run
    trap(toy, "raw", "sleep 5")
    processes = [one.start(*arguments(rev)) for one in (worker, worker, toy.worker("b"))]
    outs = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outs
    assert toy.executed() == ["raw"]
    outcomes = sorted(
        out.splitlines()[-1].split('"outcome": "')[1].split('"')[0] for out, _ in outs
    )
    assert outcomes == ["ran", "unchanged", "unchanged"]


@pytest.mark.slow
def test_a_lost_host_is_taken_over(toy: Toy, run: Any) -> None:
    worker, rev = run
    worker.extra["FLOWSIGHT_LEASE_SEC"] = "4"
    hold = trap(toy, "raw", "sleep 1000")
    process = worker.start(*arguments(rev))
    wait_for(lambda: "raw" in toy.executed())
    process.kill()
    process.communicate()
    hold.unlink()
    assert (toy.root / "runs/r1/raw.lease").exists()
    other = toy.worker("b", FLOWSIGHT_LEASE_SEC="4")
    code, out, err = other.call(*arguments(rev))
    assert code == 0
    assert "taking over from a lost worker" in err
    assert '"ran"' in out
    assert not (toy.root / "runs/r1/raw.lease").exists()


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("kill -9 $$", 75, "killed by signal 9"),
        ("exit 4", 1, "exited with 4"),
        ("note input 'expected a, got b'; exit 2", 2, "expected a, got b"),
        ("note gate 'refused'; exit 3", 3, "refused"),
        ("note resource 'no space left'; exit 75", 75, "no space left"),
        ("note bug 'DataLoader worker (pid 7) is killed by signal: Killed'; exit 1", 75, "killed"),
    ],
)
def test_a_failing_command_keeps_its_kind(
    toy: Toy, run: Any, text: str, code: int, words: str
) -> None:
    worker, rev = run
    note = 'note() { printf \'{"kind": "%s", "message": "%s"}\' "$1" "$2" > $FLOWSIGHT_FAILURE; }\n'
    trap(toy, "raw", note + text)
    got, out, err = worker.call(*arguments(rev))
    assert got == code, err
    assert words in err.splitlines()[-1]
    assert not out
    assert not list((toy.root / "runs").rglob("*.*"))
    assert not (toy.root / "a/work/trees/r1").exists()


def test_out_of_memory_halves_the_micro_batch(toy: Toy, run: Any) -> None:
    worker, rev = run
    trap(
        toy,
        "raw",
        'echo "micro:$FLOWSIGHT_MICRO_BATCH" >> "$TOY_LOG"\n'
        'if [ "${FLOWSIGHT_MICRO_BATCH:-16}" -gt 4 ]; then\n'
        'echo \'{"kind": "memory", "message": "it did not fit"}\' > $FLOWSIGHT_FAILURE\n'
        "exit 75; fi",
    )
    assert worker.call(*arguments(rev))[0] == 75
    code, _, err = toy.worker("b").call(*arguments(rev))  # the note is seen by all hosts
    assert code == 75
    assert "micro-batch of 4" in err
    assert worker.answer(*arguments(rev))["micro_batch"] == 4
    assert [line for line in toy.executed() if "micro" in line] == ["micro:", "micro:8", "micro:4"]
    assert not list((toy.root / "scratch").rglob("*.json"))


def test_a_remote_that_is_away_is_worth_a_retry(toy: Toy, run: Any) -> None:
    worker, rev = run
    toy.config(
        "[core]\n    remote = store\n['remote \"store\"']\n    url = s3://nowhere/x\n"
        "    endpointurl = http://127.0.0.1:9\n    access_key_id = a\n    secret_access_key = b\n"
        "    connect_timeout = 1\n"
    )
    code, _, err = worker.call(*arguments(rev))
    assert code == 75, err
    assert not (toy.root / "runs").exists() or not list((toy.root / "runs").rglob("*.yaml"))


def test_a_repository_that_is_away_is_worth_a_retry(toy: Toy) -> None:
    worker = toy.worker("a", FLOWSIGHT_REPO=str(toy.root / "nothing.git"))
    code, _, err = worker.call("prepare", "--run-id", "r1")
    assert code == 75
    assert "cannot reach the repository" in err


def test_no_remote_is_said_plainly(toy: Toy, run: Any) -> None:
    worker, rev = run
    toy.config("")
    code, _, err = worker.call(*arguments(rev))
    assert code == 2
    assert "expected a default DVC remote" in err


@pytest.mark.slow
def test_keep_leaves_the_tree_of_a_failure(toy: Toy, run: Any) -> None:
    worker, rev = run
    trap(toy, "raw", "exit 4")
    assert worker.call(*arguments(rev), "--keep")[0] == 1
    assert (toy.root / "a/work/trees/r1/raw/dvc.yaml").exists()
    (toy.trap / "raw").unlink()
    assert worker.stage("raw", rev, "r1")["outcome"] == "ran"
    assert not (toy.root / "a/work/trees/r1").exists()


def test_gpus_are_lent_to_one_at_a_time(toy: Toy) -> None:
    path = toy.source / "dvc.yaml"
    path.write_text(path.read_text().replace("gpus: 0", "gpus: 1", 1))
    toy.commit("raw wants a GPU")
    worker = toy.worker("a", FLOWSIGHT_GPUS="3")
    trap(
        toy,
        "raw",
        'echo "gpu:$CUDA_VISIBLE_DEVICES:begin" >> "$TOY_LOG"; sleep 4; echo end >> "$TOY_LOG"',
    )
    processes = []
    for seed in ("1", "2"):
        setting = f"sample.seed={seed}"
        rev = worker.answer("prepare", "--run-id", f"r{seed}", "--set", setting)["rev"]
        processes.append(worker.start("run-stage", "raw", "--rev", rev, "--run-id", f"r{seed}"))
    errs = [process.communicate(timeout=200)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errs
    course = [line for line in toy.executed() if line != "raw"]
    assert course == ["gpu:3:begin", "end"] * 2
