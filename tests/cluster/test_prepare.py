"""`prepare`: parameters composed once, the same id means the same settings."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ruamel.yaml import YAML

Toy = Any  # tests/cluster/conftest.py


def params(toy: Toy, rev: str) -> Any:
    return YAML(typ="safe").load(toy.in_repo("params.yaml", rev))


def test_without_settings_parameters_stay_as_committed(toy: Toy) -> None:
    path = toy.source / "params.yaml"
    path.write_text(path.read_text().replace("num_groups: 6", "num_groups: 4  # by hand"))
    main = toy.commit("by hand")
    made = toy.worker("a").answer("prepare", "--run-id", "r1")
    assert toy.in_repo("params.yaml", made["rev"]) == toy.in_repo("params.yaml", main)
    assert toy.run("git", "rev-parse", "runs/r1", cwd=toy.repo) == made["rev"]


def test_a_value_changes_only_itself(toy: Toy) -> None:
    path = toy.source / "params.yaml"
    path.write_text(path.read_text().replace("num_groups: 6", "num_groups: 4"))
    main = toy.commit("by hand")
    asked = ["--set", "rows.temporal_attended.train.epochs=3", "--set", "seed=7"]
    made = toy.worker("a").answer("prepare", "--run-id", "r1", *asked)
    before, after = params(toy, main), params(toy, made["rev"])
    before["rows"]["temporal_attended"]["train"]["epochs"] = 3
    before["seed"] = 7
    assert after == before


def test_a_group_composes_anew(toy: Toy) -> None:
    asked = ["--set", "dataset=weizmann", "--set", "recipe=smoke", "--set", 'splits.ids=["eli"]']
    made = toy.worker("a").answer("prepare", "--run-id", "r1", *asked)
    after = params(toy, made["rev"])
    assert (after["dataset"]["name"], after["recipe"]) == ("weizmann", "smoke")
    assert made["groups"]["train"] == ["train@spatial-eli", "train@temporal-eli"]


def add_a_system(toy: Toy) -> None:
    """A second system in `conf/`: one row, `solo`, like `spatial` but on its own."""
    yaml = YAML()
    path = toy.source / "conf/base.yaml"
    content = yaml.load(path)
    content["rows"]["solo"] = copy.deepcopy(content["rows"]["spatial"])
    content["rows"]["solo"]["system"] = "other"
    content["systems"] = ["two_stream", "other"]
    yaml.dump(content, path)
    toy.commit("a second system")


def test_systems_leave_out_the_instances_of_others(toy: Toy) -> None:
    add_a_system(toy)
    ask = ["prepare", "--set", "recipe=smoke"]
    both = toy.worker("a").answer(*ask, "--run-id", "r1")
    assert "train@solo-1" in both["groups"]["train"]
    chosen = ["--set", "systems=two_stream"]
    made = toy.worker("a").answer(*ask, "--run-id", "r2", *chosen)
    before, after = params(toy, both["rev"]), params(toy, made["rev"])
    assert (before.pop("systems"), after.pop("systems")) == (
        ["two_stream", "other"],
        ["two_stream"],
    )
    assert before["instances"].pop("results")["other"] == "results/other"
    assert after["instances"].pop("results")["other"] == "LICENSE", "nothing to wait for"
    del before["instances"]["evaluate"]["other"]
    for instances in before["instances"].values():
        instances.pop("solo-1", None)
    assert after == before
    code, _, err = toy.worker("a").call(*ask, "--run-id", "r3", "--set", "systems=nothing")
    assert code == 2
    assert (
        "expected systems of two_stream, residual3d, other, saliency, got 'nothing'"
        in err.splitlines()[-1]
    )


def test_the_same_id_is_the_same_run(toy: Toy) -> None:
    first = toy.worker("a").answer("prepare", "--run-id", "r1", "--set", "seed=3")
    toy.source.joinpath("note").write_text("main moves on")
    toy.commit("note")
    again = toy.worker("b").answer("prepare", "--run-id", "r1", "--set", "seed=3")
    assert again == first
    code, _, err = toy.worker("b").call("prepare", "--run-id", "r1", "--set", "seed=4")
    assert code == 2
    assert "take another run id" in err
    assert toy.run("git", "rev-parse", "runs/r1", cwd=toy.repo) == first["rev"]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("rows.spatial.train.epoch=3", "epoch"),
        ("dataset=ucf1010", "groups: dataset = hmdb51"),
        ("seed=x", "seed"),
    ],
)
def test_wrong_settings_leave_no_branch(toy: Toy, setting: str, words: str) -> None:
    code, out, err = toy.worker("a").call("prepare", "--run-id", "r1", "--set", setting)
    assert code == 2
    assert words in err.splitlines()[-1]
    assert not out
    assert not toy.run("git", "branch", "--list", "runs/*", cwd=toy.repo)


def test_unknown_revision(toy: Toy) -> None:
    code, _, err = toy.worker("a").call("prepare", "--run-id", "r1", "--rev", "nowhere")
    assert code == 2
    assert "found no 'nowhere'" in err
