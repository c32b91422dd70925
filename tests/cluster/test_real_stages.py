"""The real pipeline on two workers: the code of the commit runs, a killed training goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

Toy = Any  # tests/cluster/conftest.py

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = [
    "recipe=smoke",
    "sample.num_groups=3",
    "sample.num_test_groups=1",
    "sample.clips_per_group=1",
    "dataset.max_quarantined=0.2",
    "shards=[0]",
    "systems.two_stream.rows.spatial.train.epochs=40",
]
STAGES = [
    *("code", "sample", "manifest", "validate@manifest", "frames@0", "flow@0"),
    *("validate@clips", "splits", "validate@splits"),
]

pytestmark = [pytest.mark.slow, pytest.mark.pipeline]


@pytest.fixture
def real(toy: Toy) -> Toy:
    """The small repository's place taken by what git would take of this tree."""
    shutil.rmtree(toy.source / "conf")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in names.splitlines():
        if (ROOT / name).is_file() and name != "dvc.lock" and not name.startswith("tests/"):
            (toy.source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, toy.source / name)
    (toy.source / "step").unlink()
    # what the installed package does not say: the tree's own code must run
    path = toy.source / "src/flowsight/datasets/clips/splits.py"
    path.write_text(path.read_text() + '\nprint("the code of the commit")\n')
    toy.commit("the real pipeline")
    return toy


def test_a_killed_training_goes_on_and_ends_in_the_same_bytes(real: Toy) -> None:
    workers = [real.worker("a"), real.worker("b")]
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    rev = workers[0].answer("prepare", "--run-id", "r1", *settings)["rev"]
    for i, name in enumerate(STAGES):
        code, _, err = workers[i % 2].call("run-stage", name, "--rev", rev, "--run-id", "r1")
        assert code == 0, err[-3000:]
        assert (name == "splits") == ("the code of the commit" in err)
    name = "train@spatial-1"
    command = ["run-stage", name, "--rev", rev, "--run-id", "r1"]
    process = subprocess.Popen(
        [shutil.which("flowsight", path=workers[0].env["PATH"]) or "flowsight", *command],
        env=workers[0].env,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 120
    while not (states := list((real.root / "scratch" / name).rglob("last.ckpt"))):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    os.killpg(process.pid, 9)
    process.wait()
    done_epochs = _epochs(states[0])
    assert 0 < done_epochs < 40
    # another machine goes on from that epoch; the lost one is waited for
    other = real.worker("b", FLOWSIGHT_LEASE_SEC="4")
    code, _, err = other.call(*command)
    assert code == 0, err[-3000:]
    assert "taking over from a lost worker" in err
    assert f"goes on after epoch {done_epochs}\n" in err
    first = (real.root / "runs/r1" / f"{name}.yaml").read_text()
    assert not list((real.root / "scratch").rglob("last.ckpt"))
    # a training that nobody killed
    assert other.stage(name, rev, "r1", "--force")["outcome"] == "ran"
    assert (real.root / "runs/r1" / f"{name}.yaml").read_text() == first


def _epochs(path: Path) -> int:
    import torch

    return len(torch.load(path, map_location="cpu", weights_only=True)["history"])
