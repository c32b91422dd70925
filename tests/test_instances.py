"""Rows x splits of every system as `dvc.yaml` walks them: nothing that is read is left out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from flowsight import contract
from flowsight.errors import InputError
from flowsight.pipeline import composing, dvc_yaml, instances

ROOT = Path(__file__).resolve().parents[1]
STUDIES = sorted(path.stem for path in (ROOT / "conf/study").glob("*.yaml"))
VERBS = sorted({v for n in contract.names() for v in contract.part(n, "instances").VERBS})


def test_dvc_yaml_counts_out_what_instances_fill() -> None:
    declared = dvc_yaml.read_yaml(ROOT / "dvc.yaml")["stages"]
    assert sorted(instances.COUNTED) == VERBS
    for verb, counts in instances.COUNTED.items():
        entry = declared[verb]["do"]
        for kind, place in (("reads", "deps"), ("params", "params")):
            found = re.findall(rf"\$\{{item\.{kind}\[(\d+)\]\}}", str(entry[place]))
            assert sorted(map(int, found)) == list(range(counts[kind])), (verb, kind)


@pytest.mark.parametrize("recipe", ["sample", "small", "paper"])
def test_a_stage_depends_on_all_that_its_item_reads(tmp_path: Path, recipe: str) -> None:
    """Of all studies at once."""
    for name in ("conf", "dvc.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    params = composing.compose([f"study=[{','.join(STUDIES)}]", f"recipe={recipe}"], root=tmp_path)
    stages = dvc_yaml.load(tmp_path)
    for system, block in dvc_yaml.read_yaml(tmp_path / "params.yaml")["systems"].items():
        own = contract.part(system, "instances")
        plain = dvc_yaml.read_yaml(tmp_path / "params.yaml")
        for verb, items in own.instances(block, plain).items():
            for key, item in items.items():
                stage = stages[f"{verb}@{key}"]
                wanted = {*item["folders"].values(), *item.get("also", ())}
                assert wanted <= set(stage.deps), stage.name
                assert set(item.get("params", ())) <= set(stage.params), stage.name
                for name, path in item["folders"].items():
                    assert f"--{name.replace('_', '-')} {path}" in stage.cmd, stage.name
                assert stage.system == system
    assert params.instances["verbs"] == {
        verb: [n for n in contract.names() if verb in contract.part(n, "instances").VERBS]
        for verb in params.instances["verbs"]
    }


def made(monkeypatch: pytest.MonkeyPatch, items: dict[str, Any]) -> dict[str, Any]:
    own = contract.part("saliency", "instances")
    monkeypatch.setattr(own, "instances", lambda block, params: items)
    return instances.instances({"systems": {"saliency": {}}, "dataset": {"name": "x"}})


def test_shorter_items_are_filled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    item = {"folders": {"raw": "a", "split_file": "b"}, "also": ["c"], "params": ["seed"]}
    found = made(monkeypatch, {"refine": {"k": item}})["refine"]["k"]
    assert found["folders"] == "--raw a --split-file b"
    assert found["reads"] == ["a", "b", "c", "a", "a", "a"] and found["params"] == ["seed"]
    assert found["system"] == "saliency" and "also" not in found


@pytest.mark.parametrize(
    "item",
    [
        {"folders": {"raw": "a"}, "also": list("bcdefg")},
        {"folders": {"raw": "a"}, "params": ["seed", "images"]},
    ],
)
def test_an_item_too_long_is_refused(monkeypatch: pytest.MonkeyPatch, item: Any) -> None:
    """It would be a dependency that DVC never sees."""
    with pytest.raises(InputError, match=r"expected at most \d .* of refine@k \(saliency\), got "):
        made(monkeypatch, {"refine": {"k": item}})


def test_a_system_alone_reads_nothing_of_others(tmp_path: Path) -> None:
    for name in ("conf", "dvc.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    for system in contract.names():
        composing.compose([f"systems=[{system}]"], root=tmp_path)
        stages = dvc_yaml.load(tmp_path)
        before = dvc_yaml.upstream(stages)
        made = [out for stage in stages.values() for out in stage.outs]
        for name, stage in stages.items():
            assert stage.system in ("", system)
            for dep in stage.deps:
                there = dep.startswith(("stages", "src/")) or any(
                    dvc_yaml.overlaps(dep, o) for o in made
                )
                assert there, f"{name} of {system} alone reads {dep}, which nobody makes"
        assert f"report@{system}" in before["page"]


def test_no_system_waits_for_another() -> None:
    stages = dvc_yaml.load(ROOT)
    before = dvc_yaml.upstream(stages)
    for name, stage in stages.items():
        others = {stages[other].system for other in before[name]} - {"", stage.system}
        assert not others or stage.group == "page", f"{name} waits for {others}"


@pytest.mark.parametrize("system", contract.names())
def test_a_run_makes_no_data_that_its_systems_do_not_read(tmp_path: Path, system: str) -> None:
    """All that runs is what the page needs; clips are decoded where somebody sees them."""
    for name in ("conf", "dvc.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    composing.compose([f"systems=[{system}]"], root=tmp_path)
    stages = dvc_yaml.load(tmp_path)
    names = dvc_yaml.reached(stages)
    assert {name for name, stage in stages.items() if stage.system} < set(names)
    sees_clips = contract.find(system).SUBJECT == "clips"
    assert ("frames@0" in names) == sees_clips
    assert dvc_yaml.reached(stages, ["train"]) == [
        name for name in stages if name in names and _stands_before_training(name, stages)
    ]


def _stands_before_training(name: str, stages: dict[str, dvc_yaml.Stage]) -> bool:
    before = dvc_yaml.upstream(stages)
    found = {one for one, stage in stages.items() if stage.group == "train"}
    while more := {other for one in found for other in before[one]} - found:
        found |= more
    return name in found


def test_everything_is_for_the_page() -> None:
    stages = dvc_yaml.load(ROOT)
    assert dvc_yaml.reached(stages) == list(stages)
