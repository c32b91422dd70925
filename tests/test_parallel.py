"""`flowsight repro --jobs`: stages side by side on a pipeline of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flowsight.errors import FlowsightError, InputError
from flowsight.pipeline import parallel, running

ROOT = Path(__file__).resolve().parents[1]

PIPELINE = """
stages:
  sample:
    cmd: python work.py data/raw/sample
    deps: [work.py]
    outs: [data/raw/sample]
  half:
    foreach: [left, right]
    do:
      cmd: python work.py ${item}.txt data/raw/sample
      deps: [data/raw/sample, work.py, "${item}.seed"]
      outs: ["${item}.txt"]
  both:
    cmd: python work.py both.txt left.txt right.txt
    deps: [left.txt, right.txt]
    outs: [both.txt]
  alone:
    cmd: python work.py alone.txt
    outs: [alone.txt]
"""
# the two halves wait until both have begun: one after the other they would wait for ever
WORK = """
import os, sys, time
from pathlib import Path
from flowsight import errors
def main():
    out, *sources = sys.argv[1:]
    print("at work on", out, flush=True)  # into a file it would else come at the end
    if Path("broken").exists() and out == "left.txt":
        raise errors.InputError("expected sense in left, got none")
    if Path("meet").exists() and out in ("left.txt", "right.txt"):
        Path(out + ".begun").touch()
        end = time.monotonic() + 60
        while not (Path("left.txt.begun").exists() and Path("right.txt.begun").exists()):
            if time.monotonic() > end:
                raise SystemExit("nobody came")
            time.sleep(0.05)
    if Path("gpu.log").exists():
        with Path("gpu.log").open("a") as log:
            print(out, "begins on", os.environ.get("CUDA_VISIBLE_DEVICES"), file=log, flush=True)
            time.sleep(1)
            print(out, "ends", file=log)
    if Path("slow").exists():
        Path("begun").touch()
        time.sleep(120)
    target = Path(out)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(out + "".join(Path(s).read_text() for s in sources))
errors.guard(main)
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC repository with five stages and the real parameters."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / "work.py").write_text(WORK)
    for side in ("left", "right"):
        (tmp_path / f"{side}.seed").write_text(side)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run(["dvc", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def wanted(root: Path, *targets: str) -> dict[str, set[str]]:
    return parallel.wanted(targets, force=False, root=root, env=running.environment())


@pytest.mark.slow
def test_runs_side_by_side_then_only_what_changed(
    small: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert wanted(small) == {
        "sample": set(),
        "half@left": {"sample"},
        "half@right": {"sample"},
        "both": {"sample", "half@left", "half@right"},
        "alone": set(),
    }
    assert set(wanted(small, "half@left")) == {"sample", "half@left"}
    assert set(wanted(small, "half")) == {"sample", "half@left", "half@right"}
    (small / "meet").touch()
    running.repro(jobs=2, root=small)
    first = "data/raw/sample"
    assert (small / "both.txt").read_text() == f"both.txtleft.txt{first}right.txt{first}"
    said = capfd.readouterr()
    assert "(5 of 5, all done)" in said.err
    assert "done: open" in said.out
    assert "at work on left.txt" in (small / "build/logs/half@left.log").read_text()
    status = ["dvc", "status", "--quiet"]
    assert subprocess.run(status, cwd=small, check=False).returncode == 0, "all is up to date"
    assert wanted(small) == {}
    (small / "left.seed").write_text("other")
    assert set(wanted(small)) == {"half@left", "both"}, "and what reads it"
    (small / "left.txt.begun").unlink()
    running.repro(jobs=2, root=small)
    assert (small / "left.txt.begun").exists()
    assert subprocess.run(status, cwd=small, check=False).returncode == 0


@pytest.mark.slow
def test_a_failure_is_the_stages_own_and_nothing_new_begins(
    small: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (small / "broken").touch()
    with pytest.raises(InputError, match="expected sense in left, got none"):
        running.repro(jobs=2, root=small)
    assert not (small / "both.txt").exists()
    assert "half@left: failed with" in capfd.readouterr().err
    (small / "broken").unlink()
    running.repro(jobs=3, root=small)
    assert (small / "both.txt").exists()
    with pytest.raises(FlowsightError, match="its own message stands above"):
        running.repro(["nobody"], jobs=2, root=small)
    assert "nobody" in capfd.readouterr().err


@pytest.mark.slow
def test_a_gpu_is_for_one_stage_at_a_time(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    declared = (small / "dvc.yaml").read_text()
    meta = "\n      meta: {gpus: 1}\n  both:"
    (small / "dvc.yaml").write_text(declared.replace("\n  both:", meta))
    (small / "gpu.log").touch()
    monkeypatch.setenv("FLOWSIGHT_GPUS", "7")
    monkeypatch.setenv("FLOWSIGHT_GPU_LEASES", str(tmp_path / "leases"))
    monkeypatch.setattr(parallel, "_SAY_SEC", 0.2)
    running.repro(["half"], jobs=2, root=small)
    lines = (small / "gpu.log").read_text().splitlines()
    first, second = [line.split()[0] for line in lines[2::2]]  # after the sample, which needs none
    assert {first, second} == {"left.txt", "right.txt"}
    assert lines[2:] == [f"{first} begins on 7", f"{first} ends",
                         f"{second} begins on 7", f"{second} ends"]  # fmt: skip
    assert "half@left: at work on left.txt" in capfd.readouterr().err, "the last line of its log"
    meta = meta.replace("1", "2")
    (small / "dvc.yaml").write_text(declared.replace("\n  both:", meta))
    with pytest.raises(InputError, match="expected 2 GPUs for half@left, found 1 on this host"):
        running.repro(["half"], jobs=2, force=True, root=small)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_leaves_nothing_running(small: Path, jobs: str) -> None:
    process, family = at_work(small, jobs)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, said = process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    assert b"Traceback" not in said, said.decode()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_command_alone_ends_its_stages(
    small: Path, jobs: str, number: signal.Signals
) -> None:
    process, family = at_work(small, jobs)
    os.kill(process.pid, number)  # as a supervisor does
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said.decode()
    assert b"Traceback" not in said, said.decode()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive


def at_work(root: Path, jobs: str) -> tuple[subprocess.Popen[bytes], list[psutil.Process]]:
    """`flowsight repro` in a group of its own, once a stage has begun, and all it has started."""
    (root / "slow").touch()
    command = [Path(sys.executable).with_name("flowsight"), "repro", "--jobs", jobs]
    process = subprocess.Popen(
        command,
        cwd=root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=0,
        # a shell that runs the tests in the background has it ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    end = time.monotonic() + 120
    while not (root / "begun").exists():
        assert time.monotonic() < end, "did not start"
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    assert any("work.py" in " ".join(member.cmdline()) for member in family)
    return process, family
