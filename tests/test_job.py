"""What a stage script is asked to do, and what the tracker is told of a training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flowsight import contract, tracking
from flowsight.errors import InputError
from flowsight.pipeline import dvc_yaml, job
from flowsight.training import job as training

ROOT = Path(__file__).resolve().parents[1]
STAGES = dvc_yaml.load(ROOT)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", [n for n, stage in STAGES.items() if stage.system])
def test_dvc_yaml_s_own_commands_are_understood(name: str) -> None:
    """Every instance's: its system, its row, and all that it reads by a name."""
    stage = STAGES[name]
    python, script, *arguments = stage.cmd.split()
    assert python == "python" and (ROOT / script).is_file()
    if stage.key == stage.system:
        whole = job.of_system("", arguments)
        assert (whole.system, str(whole.out)) == (stage.system, stage.outs[0])
        told = whole.folders
    else:
        asked = job.of_row("", arguments)
        assert (asked.system, str(asked.out)) == (stage.system, stage.outs[0])
        assert stage.key == f"{asked.row_name}-{asked.split}"
        assert asked.row is asked.block.rows[asked.row_name]
        keyed = asked.scratch_key
        assert keyed == (f"{name}/{dvc_yaml.stage_key(name)}" if "--stage" in arguments else "")
        told = asked.folders
    data = [dep for dep in stage.deps if not dep.startswith("code/")]
    own = ("data/validation/", "data/weights/")  # depended on, and looked at elsewhere
    assert {dep for dep in data if not dep.startswith(own)} <= {str(p) for p in told.values()}


def test_what_is_missing_is_named() -> None:
    asked = job.of_row("", ["saliency", "fcn", "1", "--out", "x", "--raw", "data/raw/y"])
    assert asked.folders["raw"] == Path("data/raw/y") and asked.start is None
    with pytest.raises(InputError, match=r"expected --split-file PATH, as dvc\.yaml gives it"):
        assert asked.folders["split_file"]
    with pytest.raises(InputError, match=r"no row 'none' in systems\.saliency\.rows; rows: fcn, "):
        assert job.of_row("", ["saliency", "none", "1", "--out", "x"]).row
    with pytest.raises(InputError, match="expected options as --<folder> PATH, got --raw"):
        job.of_row("", ["saliency", "fcn", "1", "--out", "x", "--raw"])


def test_no_such_system(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        job.of_system("", ["nobody", "--out", "x"])
    assert ended.value.code == 2
    assert all(name in capsys.readouterr().err for name in contract.names()[:1])


@pytest.mark.parametrize("name", ["train@temporal-1", "train@recurrent-both", "refine@fcn_f-1"])
def test_the_tracker_is_told_what_went_in(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr(
        tracking, "run", lambda run, params, tags: told.update(run=run, params=params, tags=tags)
    )
    stage = STAGES[name]
    asked = job.of_row("", stage.cmd.split()[2:])
    training.tracked(asked)
    found = SimpleNamespace(**told)
    assert found.run == stage.key
    assert found.params["train"]["lr"] == asked.row.train.lr and found.params["seed"] == 1
    tags = found.tags
    assert (tags["system"], tags["row"], tags["split"]) == (
        stage.system, asked.row_name, asked.split,
    )  # fmt: skip
    assert (tags["stage"], tags["stage_hash"]) == (name, dvc_yaml.stage_key(name))
    data = {"two_stream": "sample", "background": "sample_scenes", "saliency": "sample_images"}
    assert (tags["dataset"], tags["recipe"]) == (data[stage.system], "sample")
    assert tags["bit_reproducible"] == "True"
    assert ("micro_batch" in tags) == (stage.system != "background")
