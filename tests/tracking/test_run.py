"""What reaches the training of its tracker: nothing; and what the tracker gets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flowsight import tracking
from flowsight.tracking import place, spool

from .conftest import spools

LOCK = """
stages:
  manifest:
    deps: [{path: data/raw/toy, md5: a1.dir}, {path: stages/manifest.py, md5: b2}]
    outs: [{path: data/manifests/toy, md5: d4.dir}]
  splits:
    outs: [{path: data/splits/toy, md5: c3.dir}]
"""


def test_flatten() -> None:
    nested = {"seed": 1, "train": {"lr": 0.1, "milestones": (30, 250)}, "none": None}
    assert tracking.flatten(nested) == {
        "seed": "1",
        "train.lr": "0.1",
        "train.milestones": "(30, 250)",
        "none": "None",
    }


def test_default_store_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking.tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    assert tracking.tracking_uri() == "http://tracker:5000"


@pytest.mark.parametrize(
    "setting", [("FLOWSIGHT_TRACKING", "off"), ("LOCAL_RANK", "1"), ("RANK", "2")]
)
def test_off_starts_nothing(
    setting: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(*setting)
    monkeypatch.setattr(subprocess, "Popen", lambda *_: pytest.fail("started a process"))
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)  # another test may have loaded it
    with tracking.run("x", params={}, tags={}) as log:
        log({"loss": 1.0}, 1)
    assert "mlflow" not in sys.modules and not list(tmp_path.iterdir())


def test_a_tracker_that_dies_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    done = 0
    with tracking.run("x", params={}, tags={}) as log:
        for step in range(2000):
            log({"loss": 1.0}, step)
            done += 1
    assert done == 2000
    (waits,) = spools(tmp_path)
    assert len(spool.Lines(waits).read()) == 2001
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "ended with code 1" in line and f"`flowsight tracking send {waits.parent}`" in line


def test_a_tracker_that_hangs_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "sleepy"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with tracking.run("x", params={}, tags={}, wait_sec=0.2) as log:
        log({"loss": 1.0}, 1)
    assert "gave up after 0.2 s" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("error", "status"), [(ZeroDivisionError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_an_error_in_the_block_comes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], status: str
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(error), tracking.run("x", params={}, tags={}):
        raise error
    assert spool.Lines(spools(tmp_path)[0]).read()[-1]["end"] == status


def test_a_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FLOWSIGHT_SCRATCH", str(tmp_path / "file"))
    with tracking.run("x", params={}, tags={}) as log:
        log({"loss": 1.0}, 1)
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("tracking: cannot keep") and line.endswith("the work goes on without")


def test_what_the_first_line_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://anna:secret@tracker:5000/x")
    monkeypatch.setenv("FLOWSIGHT_RUN_ID", "no plain name'")
    (tmp_path / "dvc.lock").write_text(LOCK)
    monkeypatch.chdir(tmp_path)
    tags = {"dataset": "toy", "split": "2"}
    with tracking.run("x", params={"train": {"lr": 0.1}}, tags=tags):
        pass
    (waits,) = spools(tmp_path)
    assert "secret" not in waits.read_text()
    start = spool.Lines(waits).start
    assert start["uri"] == "https://tracker:5000/x" and start["run_id"] is None
    assert place.with_login(start["uri"]) == "https://anna:secret@tracker:5000/x"
    assert start["params"] == {"train.lr": "0.1"} and start["tags"]["split"] == "2"
    assert [(one["name"], one["digest"], one["context"]) for one in start["datasets"]] == [
        ("toy", "a1.dir", "training"),
        ("toy-splits", "c3.dir", "split 2"),
    ]
    assert place.with_login("sqlite:///x") == "sqlite:///x"


def test_a_repository_by_url_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOWSIGHT_REPO", "git@host:flowsight.git")
    assert place.spool_folder() == tmp_path / "build/scratch/.tracking"
    monkeypatch.setenv("FLOWSIGHT_SCRATCH", "/somewhere")
    assert place.spool_folder() == Path("/somewhere/.tracking")
