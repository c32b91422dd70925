"""`prepare`: parameters composed once, the same id means the same settings."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

Toy = Any  # tests/cluster/conftest.py

ROOT = Path(__file__).resolve().parents[2]


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
    asked = ["--set", "systems.two_stream.rows.temporal_attended.train.epochs=3", "--set", "seed=7"]
    made = toy.worker("a").answer("prepare", "--run-id", "r1", *asked)
    before, after = params(toy, main), params(toy, made["rev"])
    before["systems"]["two_stream"]["rows"]["temporal_attended"]["train"]["epochs"] = 3
    before["seed"] = 7
    assert after == before


def test_a_group_composes_anew(toy: Toy) -> None:
    asked = ["--set", "dataset=weizmann", "--set", "recipe=smoke", "--set", 'splits.ids=["eli"]']
    made = toy.worker("a").answer("prepare", "--run-id", "r1", *asked)
    after = params(toy, made["rev"])
    assert (after["dataset"]["name"], after["recipe"]) == ("weizmann", "smoke")
    trained = made["groups"]["train@two_stream"]
    assert trained == ["train@spatial-eli", "train@temporal-eli"]


def add_systems(toy: Toy) -> None:
    """The systems that the toy's `conf/` leaves out."""
    shutil.copy(ROOT / "conf/config.yaml", toy.source / "conf/config.yaml")
    toy.commit("all systems")


def test_systems_leave_out_the_instances_of_others(toy: Toy) -> None:
    add_systems(toy)
    ask = ["prepare", "--set", "recipe=smoke"]
    every = toy.worker("a").answer(*ask, "--run-id", "r1")
    assert "train@resnet3d-1" in every["groups"]["train@residual3d"]
    chosen = ["--set", "systems=two_stream"]
    made = toy.worker("a").answer(*ask, "--run-id", "r2", *chosen)
    assert made["groups"]["train@two_stream"] == ["train@spatial-1", "train@temporal-1"]
    assert not [name for name in made["groups"] if name.endswith("@residual3d")]
    before, after = params(toy, every["rev"]), params(toy, made["rev"])
    names = ["two_stream", "residual3d", "background", "saliency"]
    assert (list(before["systems"]), list(after["systems"])) == (names, ["two_stream"])
    assert before["instances"]["report"].keys() == set(names)
    for name in names[1:]:
        del before["systems"][name]
    for verb, items in before["instances"].items():
        if verb not in ("page", "verbs"):
            own = {key: item for key, item in items.items() if item["system"] == "two_stream"}
            before["instances"][verb] = own
    assert after == before
    code, _, err = toy.worker("a").call(*ask, "--run-id", "r3", "--set", "systems=nothing")
    assert code == 2
    assert (
        "expected systems of background, residual3d, saliency, two_stream, got 'nothing'"
        in err.splitlines()[-1]
    )


def test_systems_keep_what_was_changed_of_them(toy: Toy) -> None:
    """By hand at a chosen system, at another one and at none: what is not left out stays."""
    add_systems(toy)
    changes = ["seed=5", "systems.saliency.rows.fcn.train.epochs=7",
               "systems.two_stream.rows.spatial.train.epochs=9"]  # fmt: skip
    toy.run("flowsight", "compose", "shards=[0,1]", *changes, cwd=toy.source)
    main = toy.commit("values changed")
    asked = ["--set", "systems=saliency", "--set", "systems.saliency.rows.fcn.train.lr=0.25"]
    made = toy.worker("a").answer("prepare", "--run-id", "r1", *asked)
    before, after = params(toy, main), params(toy, made["rev"])
    assert list(after["systems"]) == ["saliency"]
    wanted = before["systems"]["saliency"]
    assert wanted["rows"]["fcn"]["train"]["epochs"] == 7
    wanted["rows"]["fcn"]["train"]["lr"] = 0.25
    assert after["systems"]["saliency"] == wanted
    assert (after["seed"], after["shards"]) == (before["seed"], before["shards"]) == (5, [0, 1])
    shared = before.keys() - {"systems", "instances"}
    assert shared == after.keys() - {"systems", "instances"}
    assert all(after[name] == before[name] for name in shared)


def test_systems_leave_out_stages_of_others(toy: Toy) -> None:
    """Of the real pipeline, in which every group is there, only those that the chosen one needs."""
    add_systems(toy)
    shutil.copy(ROOT / "dvc.yaml", toy.source)
    toy.run("flowsight", "compose", "shards=[0,1]", cwd=toy.source)
    toy.commit("the real pipeline")
    every = toy.worker("a").answer("prepare", "--run-id", "r1")["groups"]
    made = toy.worker("a").answer("prepare", "--run-id", "r2", "--set", "systems=saliency")
    chosen = made["groups"]
    own = {f"{verb}@saliency" for verb in ("items", "train", "refine", "predict", "evaluate")}
    assert {*own, "report@saliency", "page"} <= chosen.keys()
    data = {"code", "sample", "page"}  # of the data what it reads, and no clips
    others = {"train@two_stream", "explain@two_stream", "refine@two_stream", "peers@background",
              "predict@residual3d", "spatial_attention@residual3d"}  # fmt: skip
    assert others <= every.keys()
    assert all(name.endswith("@saliency") for name in chosen.keys() - data)
    assert all(set(names) <= set(every[node]) for node, names in chosen.items())


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
        ("systems.two_stream.rows.spatial.train.epoch=3", "epoch"),
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
