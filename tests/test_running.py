"""`flowsight repro` on a small pipeline of its own: checks, repair, restoring, plain endings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flowsight.errors import FlowsightError, GateError, InputError
from flowsight.pipeline import running

ROOT = Path(__file__).resolve().parents[1]

PIPELINE = """
stages:
  sample:
    cmd: mkdir -p data/raw/sample && echo {seed} > data/raw/sample/x
    params: [seed]
    outs: [data/raw/sample]
  check:
    cmd: python check.py
    deps: ['data/raw/${dataset.name}', check.py]
    outs: [result.txt]
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC repository with two stages and the real parameters."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / "dvc.yaml").write_text(PIPELINE.replace("{seed}", "${seed}"))
    (tmp_path / "check.py").write_text("open('result.txt', 'w').write('fine')\n")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run(["dvc", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def failing(kind: str) -> str:
    """A stage script that fails as ours do."""
    return (
        "from flowsight import errors\n"
        f"def main():\n    raise errors.{kind}('expected sense, got none')\n"
        "errors.guard(main)\n"
    )


def test_runs_and_says_where(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    running.repro(root=small)
    assert (small / "result.txt").read_text() == "fine"
    assert "done: open" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["InputError", "GateError"])
def test_failure_keeps_its_kind_and_earlier_outputs(small: Path, kind: str) -> None:
    running.repro(root=small)
    (small / "check.py").write_text(failing(kind))
    with pytest.raises(FlowsightError, match="expected sense, got none") as error:
        running.repro(root=small)
    assert type(error.value) is {"InputError": InputError, "GateError": GateError}[kind]
    assert (small / "result.txt").read_text() == "fine"  # DVC had removed it


@pytest.mark.parametrize("broken", ["", "stages: {", "schema: '2.0'\n"])
def test_broken_lock_is_repaired(small: Path, broken: str) -> None:
    running.repro(root=small)
    whole = (small / "dvc.lock").read_text()
    (small / "dvc.lock").write_text(broken)
    running.repro(root=small)
    assert (small / "dvc.lock").read_text() == whole


def test_broken_lock_without_a_copy_costs_nothing_but_a_look(small: Path) -> None:
    running.repro(root=small)
    whole = (small / "dvc.lock").read_text()
    (small / "build" / "dvc.lock").unlink()
    (small / "dvc.lock").write_text("")
    before = (small / "result.txt").stat().st_mtime_ns
    running.repro(root=small)
    assert (small / "dvc.lock").read_text() == whole
    assert (small / "result.txt").stat().st_mtime_ns >= before


def test_missing_data_set_is_named_before_anything_runs(small: Path) -> None:
    text = (small / "params.yaml").read_text()
    (small / "params.yaml").write_text(text.replace("  name: sample", "  name: weizmann"))
    with pytest.raises(InputError, match="flowsight import weizmann SOURCE"):
        running.repro(root=small)
    assert not (small / "data").exists()


@pytest.mark.parametrize(
    ("dep", "hint"),
    [
        ("data/weights/some.pth", "flowsight import weights FILE"),
        ("data/raw/cdnet2012", "flowsight import cdnet2012 SOURCE"),
        ("lost.py", "found no such file$"),
    ],
)
def test_all_that_no_stage_makes_must_be_there(small: Path, dep: str, hint: str) -> None:
    """Weights, scenes, images, anything: no kind of data is forgotten, for none is named."""
    (small / "dvc.yaml").write_text(
        (small / "dvc.yaml").read_text() + f"  more:\n    cmd: 'true'\n    deps: [{dep}]\n"
    )
    with pytest.raises(InputError, match=hint) as error:
        running.repro(root=small)
    assert str(error.value).startswith("more: expected ") and dep in str(error.value)
    running.repro(["check"], root=small)  # does not read it


def test_wrong_parameter_touches_nothing(small: Path) -> None:
    running.repro(root=small)
    text = (small / "params.yaml").read_text()
    (small / "params.yaml").write_text(text.replace("threads:", "thread:"))
    with pytest.raises(InputError, match="did you mean `threads`"):
        running.repro(root=small)
    assert (small / "result.txt").read_text() == "fine"
