"""What `dvc.lock` on main says is believed only as far as it holds."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

Toy = Any  # tests/cluster/conftest.py

pytestmark = pytest.mark.slow


@pytest.fixture
def locked(toy: Toy) -> str:
    """main with the lock of a person's own `dvc repro`."""
    toy.run(
        "dvc", "repro", "-q", cwd=toy.source, DVC_GLOBAL_CONFIG_DIR=str(toy.root / "dvc-config")
    )
    return str(toy.commit("results"))


def push(toy: Toy) -> None:
    toy.run("dvc", "push", "-q", cwd=toy.source, DVC_GLOBAL_CONFIG_DIR=str(toy.root / "dvc-config"))


def outcomes(worker: Any, rev: str, stages: list[str]) -> set[str]:
    return {worker.stage(name, rev, "r1")["outcome"] for name in stages}


def test_results_in_the_remote_are_not_computed_again(toy: Toy, locked: str) -> None:
    push(toy)
    worker = toy.worker("a")
    rev = worker.answer("prepare", "--run-id", "r1")["rev"]
    assert outcomes(worker, rev, toy.stages) == {"unchanged"}
    assert toy.executed() == []
    worker.answer("gather", "--rev", rev, "--run-id", "r1")
    assert toy.in_repo("dvc.lock", "runs/r1") == toy.in_repo("dvc.lock", locked)


def test_a_lock_whose_objects_nobody_has_is_not_believed(toy: Toy, locked: str) -> None:
    worker = toy.worker("a")
    rev = worker.answer("prepare", "--run-id", "r1")["rev"]
    names = ["raw", "list", *toy.stages[2:4], "train@spatial-1"]
    assert outcomes(worker, rev, names) == {"ran"}
    assert toy.executed() == names


def test_a_stale_entry_does_not_hide_a_change(toy: Toy, locked: str) -> None:
    """Another seed: what depends on it, through folders and files in folders, runs again."""
    push(toy)
    worker = toy.worker("a")
    settings = ["--set", "sample.seed=9"]
    rev = worker.answer("prepare", "--run-id", "r1", *settings)["rev"]
    shutil.rmtree(toy.source / ".dvc/cache")
    assert outcomes(worker, rev, toy.stages) == {"ran"}
    assert toy.executed() == toy.stages
    done = worker.answer("gather", "--rev", rev, "--run-id", "r1")
    assert done["stages"] == len(toy.stages)


def test_a_parameter_of_one_stage_runs_what_depends_on_it(toy: Toy, locked: str) -> None:
    push(toy)
    worker = toy.worker("a")
    rev = worker.answer("prepare", "--run-id", "r1", "--set", "seed=9")["rev"]
    for name in toy.stages[:4]:
        assert worker.stage(name, rev, "r1")["outcome"] == "unchanged"
    assert outcomes(worker, rev, toy.stages[4:6]) == {"ran"}
    # the same model came out, so the report stays
    assert worker.stage("report", rev, "r1")["outcome"] == "unchanged"


def test_gather_refuses_fragments_that_do_not_fit_together(toy: Toy) -> None:
    worker = toy.worker("a")
    rev = worker.answer("prepare", "--run-id", "r1")["rev"]
    for name in toy.stages:
        worker.stage(name, rev, "r1")
    path = toy.root / "runs/r1/frames@0.yaml"
    entry = path.read_text()
    other = (toy.root / "runs/r1/frames@1.yaml").read_text()
    md5s = [next(x for x in text.split() if x.endswith(".dir")) for text in (entry, other)]
    path.write_text(entry.replace(*md5s))
    code, _, err = worker.call("gather", "--rev", rev, "--run-id", "r1")
    assert code == 1
    assert "train@spatial-1, train@temporal-1 read something older" in err
