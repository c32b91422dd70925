"""The real pipeline, small: trained with tracking, registered, and reproduced from nothing."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ..test_end_to_end import FEW, clone

pytestmark = [pytest.mark.slow, pytest.mark.pipeline, pytest.mark.timeout(3600)]
BIN = Path(sys.executable).parent

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Command]:
    """A committed run of the smoke recipe, and a way to call commands in it."""
    root = clone(tmp_path_factory.mktemp("real"))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FLOWSIGHT_", "MLFLOW_"))}
    env = {**kept, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}

    def call(*command: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stdout[-3000:], done.stderr[-3000:])
        return done

    call("flowsight", "compose", "recipe=smoke", *FEW)
    call("flowsight", "repro", "evaluate@two_stream")
    call("git", "add", "-A")
    call("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a run")
    return root, call


def test_trainings_stand_below_one_run_of_the_pipeline(project: tuple[Path, Command]) -> None:
    root, _ = project
    with closing(sqlite3.connect(root / "mlflow.db")) as store:
        rows = store.execute(
            "select name, status, value from runs left join tags on "
            "tags.run_uuid = runs.run_uuid and tags.key = 'mlflow.parentRunId'"
        ).fetchall()
        inputs = store.execute("select distinct name, digest from datasets").fetchall()
    (parent,) = [name for name, _, above in rows if above is None]
    assert parent.startswith("repro-") and {status for _, status, _ in rows} == {"FINISHED"}
    children = {name for name, _, above in rows if above is not None}
    assert (
        children == {*("spatial-1", "temporal-1", "spatial_attended-1", "temporal_attended-1")}
        and len({above for _, _, above in rows if above is not None}) == 1
    )
    assert {name for name, _ in inputs} == {"sample", "sample-splits"}
    assert all(digest.endswith(".dir") for _, digest in inputs)
    assert list((root / "build/scratch/.tracking").iterdir()) == []
    lock = (root / "dvc.lock").read_text()
    assert parent not in lock


def test_reproduced_without_the_cache(project: tuple[Path, Command]) -> None:
    call = project[1]
    made = json.loads(call("flowsight", "register", "two_stream").stdout.splitlines()[-1])
    assert made["version"] == "1" and made["new"]
    done = call("flowsight", "reproduce", "models:/two_stream@challenger", "--no-cache")
    head, verdict = done.stdout.splitlines()[-2:]
    ran, _, total = head.partition(": ")[2].split()[:3]
    assert ran == total and int(total) > 20
    assert verdict.startswith("bit-identical: ")
    assert call("git", "worktree", "list").stdout.count("\n") == 1
