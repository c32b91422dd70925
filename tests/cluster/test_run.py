"""A run over two workers gives what one machine gives, computing everything once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

Toy = Any  # tests/cluster/conftest.py


def one_machine(toy: Toy, rev: str) -> bytes:
    """`dvc.lock` as a person's `dvc repro` writes it at a commit, with an empty cache."""
    clone = toy.root / "one"
    toy.run("git", "clone", "-q", toy.repo, clone, cwd=toy.root)
    toy.run("git", "checkout", "-q", rev, cwd=clone)
    toy.run("dvc", "repro", "-q", cwd=clone)
    lock: bytes = (clone / "dvc.lock").read_bytes()
    return lock


@pytest.mark.slow
def test_two_workers_give_the_bytes_of_one_machine(toy: Toy) -> None:
    workers = [toy.worker("a"), toy.worker("b")]
    made = workers[0].answer("prepare", "--run-id", "r1", "--set", "sample.seed=5")
    assert [name for names in made["groups"].values() for name in names] == toy.stages
    for i, name in enumerate(toy.stages):
        answer = workers[i % 2].stage(name, made["rev"], "r1")
        assert (answer["stage"], answer["outcome"]) == (name, "ran")
    assert toy.executed() == toy.stages
    assert not list((toy.root / "a/work/trees").rglob("dvc.yaml"))  # work trees are gone
    done = workers[1].answer("gather", "--rev", made["rev"], "--run-id", "r1")
    assert done["stages"] == len(toy.stages)
    assert (Path(done["results"]) / "report.txt").read_text().startswith("5\n0\n5\n1\n")
    lock = toy.in_repo("dvc.lock", "runs/r1") + "\n"
    assert lock.encode() == one_machine(toy, made["rev"])
    assert toy.run("git", "rev-parse", "runs/r1", cwd=toy.repo) == done["commit"]
    # again: nothing is computed, nothing is committed
    assert workers[0].stage("report", made["rev"], "r1")["outcome"] == "unchanged"
    again = workers[0].answer("gather", "--rev", made["rev"], "--run-id", "r1")
    assert again["commit"] == done["commit"]
    assert toy.executed() == toy.stages


@pytest.mark.slow
def test_another_run_restores_what_is_the_same(toy: Toy) -> None:
    worker, other = toy.worker("a"), toy.worker("b")
    first = worker.answer("prepare", "--run-id", "r1")
    for name in toy.stages[:4]:
        worker.stage(name, first["rev"], "r1")
    count = len(toy.executed())
    second = other.answer("prepare", "--run-id", "r2", "--set", "frames.quality=50")
    outcomes = {name: other.stage(name, second["rev"], "r2")["outcome"] for name in toy.stages[:4]}
    assert outcomes == {
        "raw": "restored",
        "list": "restored",
        **{f"frames@{k}": "ran" for k in range(2)},
    }
    assert toy.executed()[count:] == [f"frames@{k}" for k in range(2)]


def test_missing_upstream_is_named(toy: Toy) -> None:
    worker = toy.worker("a")
    rev = worker.answer("prepare", "--run-id", "r1")["rev"]
    code, out, err = worker.call("run-stage", "train@spatial-1", "--rev", rev, "--run-id", "r1")
    assert code == 2
    assert "found nothing of list, frames@0" in err.splitlines()[-1]
    assert not out
    code, _, err = worker.call("run-stage", "train@x", "--rev", rev, "--run-id", "r1")
    assert code == 2
    assert "train@x" in err
    code, _, err = worker.call("gather", "--rev", rev, "--run-id", "r1")
    assert code == 2
    assert "found nothing of raw" in err


@pytest.mark.parametrize(
    "run_id", ["../x", "a b", "x.lock", "a..b", "-x", "manual__2026-01-01T00:00"]
)
def test_run_ids_are_plain_names(toy: Toy, run_id: str) -> None:
    code, _, err = toy.worker("a").call("prepare", f"--run-id={run_id}")
    assert code == 2
    assert "expected a run id" in err
