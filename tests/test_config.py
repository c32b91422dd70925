"""Parameters are checked once, and a mistake names its key."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from flowsight import contract
from flowsight.errors import InputError
from flowsight.params import config
from flowsight.pipeline import composing, dvc_yaml

ROOT = Path(__file__).resolve().parents[1]


def edited(tmp_path: Path, key: str, value: object) -> Path:
    """A copy of params.yaml with one value changed (dotted key)."""
    yaml = YAML(typ="safe")
    content = yaml.load((ROOT / "params.yaml").read_text())
    *parents, last = key.split(".")
    block = content
    for part in parents:
        block = block[part]
    block[last] = value
    path = tmp_path / "params.yaml"
    with path.open("w") as file:
        yaml.dump(content, file)
    return path


def test_committed_parameters_are_the_composed_default(tmp_path: Path) -> None:
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    composing.compose([], root=tmp_path)
    assert (tmp_path / "params.yaml").read_text() == (ROOT / "params.yaml").read_text()


@pytest.mark.parametrize("dataset", ["sample", "weizmann", "ucf101", "hmdb51"])
@pytest.mark.parametrize("recipe", ["sample", "smoke", "small", "paper"])
def test_every_combination_composes(tmp_path: Path, dataset: str, recipe: str) -> None:
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    params = composing.compose([f"dataset={dataset}", f"recipe={recipe}"], root=tmp_path)
    assert (params.dataset.name, params.recipe) == (dataset, recipe)
    first = params.splits.ids[0]
    phase2 = params.instances["refine"][f"spatial_attended-{first}"]
    assert f"attention/two_stream/{dataset}/temporal-{first}" in phase2["reads"]


@pytest.mark.parametrize("recipe", ["sample", "smoke", "small", "paper"])
def test_every_study_fits_every_recipe(tmp_path: Path, recipe: str) -> None:
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    studies = ",".join(sorted(path.stem for path in (ROOT / "conf/study").glob("*.yaml")))
    params = composing.compose([f"study=[{studies}]", f"recipe={recipe}"], root=tmp_path)
    rounds = params.system("two_stream").alternation.rounds
    assert rounds <= params.row("spatial_turns").train.epochs
    too_many = (
        f"systems.two_stream.alternation.rounds={params.row('spatial_turns').train.epochs + 1}"
    )
    with pytest.raises(InputError, match="at least an epoch for each of alternation"):
        composing.compose(["study=schedules", f"recipe={recipe}", too_many], root=tmp_path)


def test_scientific_notation_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text()
    path.write_text(text.replace("lr: 0.003", "lr: 1e-3"))
    assert config.load(path).row("spatial").train.lr == 0.001


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("S.rows.spatial.train.epoch", 3, "did you mean `epochs`"),
        (
            "S.rows.spatial.train.epochs",
            "many",
            "expected int at `params.S.rows.spatial.train.epochs`",
        ),
        ("S.rows.spatial.train.epochs", True, "expected int"),
        ("S.rows.spatial.train.lr", -1, "lr must be positive"),
        ("S.rows.spatial.input.crop_px", 1000, "crop_px"),
        ("S.rows.spatial.input.modality", "depth", "must be one of rgb, flow"),
        ("S.rows.spatial.start.maps", "nobody", "rows.spatial.start.maps names no row"),
        ("S.rows.spatial", None, "expected a mapping"),
        ("shards", 4, "expected a list"),
        ("shards", [0, 0], "shards repeat"),
        ("splits.ids", [], "at least one split"),
        ("dataset.name", "../elsewhere", "not a folder name"),
        ("dataset.max_absent", 2, "max_absent must be in [0, 1]"),
        ("flow.backend", "auto", "backend must be one of"),
        ("frames.size", [320], "expected 2 values"),
        ("S.promote.min_measure", 50, "min_measure must be in [0, 1]"),
        ("S.promote.max_latency_sec", 0, "max_latency_sec must be positive or null"),
        ("S.promote.min_meassure", 0.5, "did you mean `min_measure`"),
        ("S.evaluate.fusions.attention", {"spatial": "no", "temporal": "no"}, "names no row"),
        ("S.evaluate.headline", "nobody", "headline names no fusion"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, key: str, value: object, says: str) -> None:
    own = "systems.two_stream."
    path = edited(tmp_path, key.replace("S.", own), value)
    with pytest.raises(InputError) as error:
        config.load(path)
    assert says.replace("S.", own) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text().replace("seed: 1\nthreads", "threads", 1))
    with pytest.raises(InputError, match=r"missing parameter `params\.seed`"):
        config.load(path)


def test_no_file_and_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        config.load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1")
    with pytest.raises(InputError, match="not valid YAML"):
        config.load(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    "override",
    [
        "dataset=nothing",
        "systems.two_stream.rows.spatial.train.lrr=1",
        "systems.two_stream.rows.spatial.train.lr=-1",
        "x",
    ],
)
def test_a_bad_override_leaves_the_old_parameters(tmp_path: Path, override: str) -> None:
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    (tmp_path / "params.yaml").write_text("old\n")
    with pytest.raises(InputError):
        composing.compose([override], root=tmp_path)
    assert (tmp_path / "params.yaml").read_text() == "old\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["conf", "params.yaml"]


@pytest.mark.parametrize(
    ("study", "rows", "fusions"),
    [
        ("controls", 8, ["constant", "shuffled", "to_spatial", "to_temporal"]),
        ("baselines", 8, ["baseline", "tsn"]),
        ("map_values", 12, ["map_05", "map_10", "attention_05", "attention_10"]),
        ("stack_lengths", 10, ["m5", "m10", "attention_m5", "attention_m10"]),
        ("schedules", 6, ["turns"]),
        ("layers", 16, ["block1", "block2", "blocks"]),
        ("key_frames", 8, ["key_frames"]),
        ("learnt", 8, ["learnt"]),
        ("[controls,baselines]", 12, ["constant", "shuffled", "to_spatial", "to_temporal",
                                      "baseline", "tsn"]),
    ],
)  # fmt: skip
def test_every_study_composes(tmp_path: Path, study: str, rows: int, fusions: list[str]) -> None:
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    params = composing.compose([f"study={study}", "recipe=small"], root=tmp_path)
    own = params.system("two_stream")
    assert len(own.rows) == rows
    assert list(own.evaluate.fusions) == ["two_stream", "attention", *fusions]
    verbs = ("train", "refine", "alternate", "explain")
    items = [item for verb in verbs for item in params.instances[verb].values()]
    made = {row for i in items if i["system"] == "two_stream" for row in (i["row"], i.get("other"))}
    assert made - {None} == set(own.rows)


def test_a_variant_differs_only_where_it_says(tmp_path: Path) -> None:
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    params = composing.compose(["study=[controls,baselines]"], root=tmp_path)
    rows = params.system("two_stream").rows
    for stream in ("spatial", "temporal"):
        for control in ("constant", "shuffled"):
            attended = rows[f"{stream}_attended"]
            expected = replace(attended, start=replace(attended.start, map_control=control))
            assert rows[f"{stream}_{control}"] == expected
        own = rows[stream]
        plain = replace(own, network=replace(own.network, map_channel=False))
        assert rows[f"two_stream_{stream}"] == plain
        segments = replace(plain, input=replace(plain.input, num_segments=3))
        assert rows[f"tsn_{stream}"] == segments
    fewer = "systems.two_stream.rows.spatial.train.epochs=3"
    changed = composing.compose(["study=controls", fewer], root=tmp_path)
    assert changed.row("spatial").train.epochs == 3


def study_of(row: str) -> str:
    """A study that adds the row `other` to the two streams."""
    return f"# @package _global_\nsystems:\n  two_stream:\n    rows:\n      other: {row}\n"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("${variant:two_stream.nobody,{start:{map_control:constant}}}", "unknown row 'nobody'"),
        ("${variant:two_stream.spatial,{trian:{epochs:1}}}", "trian"),
    ],
)
def test_a_wrong_variant_is_named(tmp_path: Path, row: str, says: str) -> None:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "conf/study/wrong.yaml").write_text(study_of(row))
    with pytest.raises(InputError, match=says):
        composing.compose(["study=wrong"], root=tmp_path)
    assert not (tmp_path / "params.yaml").exists()


def test_an_unknown_study_is_named(tmp_path: Path) -> None:
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    with pytest.raises(InputError, match="study = baselines, controls"):
        composing.compose(["study=wishes"], root=tmp_path)


@pytest.mark.parametrize(
    ("backbone", "names"),
    [
        ("inception_v3", ["Mixed_7a", "Mixed_7b", "Mixed_7c"]),
        ("squeezenet1_0", ["features.9", "features.10", "features.12"]),
    ],
)
def test_layers_are_those_of_the_network(tmp_path: Path, backbone: str, names: list[str]) -> None:
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    chosen = f"systems.two_stream.rows.spatial.network.backbone={backbone}"
    params = composing.compose(["study=layers", chosen, "recipe=paper"], root=tmp_path)
    for stream in ("spatial", "temporal"):
        for row, layers in (("block1", names[:1]), ("block2", names[1:2]), ("blocks", names)):
            found = params.row(f"{stream}_{row}")
            assert list(found.network.target_layers) == layers
            explains = found.start.explains
            assert explains is not None and explains.row == stream
    # maps of other layers, of the networks that there are: nothing but phase 2 is trained for them
    train = params.instances["train"]
    assert {key for key, item in train.items() if item["system"] == "two_stream"} == {
        f"{stream}-{split}" for stream in ("spatial", "temporal") for split in params.splits.ids
    }
    first = params.splits.ids[0]
    maps = params.instances["explain"][f"spatial_block1-{first}"]
    explained = f"checkpoints/{params.dataset.name}/spatial-{first}"
    assert f"--checkpoint {explained}" in maps["folders"] and explained in maps["reads"]
    assert f"spatial_block1-{first}" not in params.instances["train"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("start:{explains:{row:nobody}}", "explains.row names no row: 'nobody'"),
        ("start:{explains:{row:spatial_attended}}", "explains.row must name a phase-1 row"),
        ("start:{explains:{row:temporal}}", "must be as rows.temporal"),
        ("start:{explains:{row:spatial}},network:{dropout:0.9}", "must be as rows.spatial"),
        ("start:{explains:{row:spatial},maps:temporal}", "init and maps must be null"),
        ("start:{explains:{row:spatial,key_every:0}}", "key_every must be at least 1"),
        ("start:{explains:{row:spatial,through:spatial}}", "must name a row of the other stream"),
        ("start:{explains:{row:spatial,through:temporal,key_every:2}}", "no key frames"),
        ("start:{explains:{row:spatial,layer:x}}", "unknown parameter .*explains.layer"),
    ],
)
def test_explaining_rows_that_cannot_be(tmp_path: Path, override: str, message: str) -> None:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    study = study_of(f"${{variant:two_stream.spatial,{{{override}}}}}")
    (tmp_path / "conf" / "study" / "wrong.yaml").write_text(study)
    with pytest.raises(InputError, match=message) as refused:
        composing.compose(["study=wrong"], root=tmp_path)
    assert "\n" not in str(refused.value)


def test_a_row_without_a_network_scores_no_clip(tmp_path: Path) -> None:
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    with pytest.raises(InputError, match="spatial_keys only makes maps"):
        composing.compose(
            [
                "study=key_frames",
                "systems.two_stream.evaluate.fusions.key_frames.spatial=spatial_keys",
            ],
            root=tmp_path,
        )


@pytest.mark.parametrize(
    ("system", "row", "others"),
    [("residual3d", "spatial", "two_stream"), ("saliency", "recurrent", "background")],
)
def test_a_row_name_belongs_to_one_system(
    tmp_path: Path, system: str, row: str, others: str
) -> None:
    """A name says which files are whose, so two systems may not share one."""
    rows = YAML(typ="safe").load((ROOT / "params.yaml").read_text())["systems"][system]["rows"]
    path = edited(tmp_path, f"systems.{system}.rows.{row}", next(iter(rows.values())))
    with pytest.raises(InputError) as refused:
        config.load(path)
    said = str(refused.value)
    assert f"row {row!r} stands in " in said
    assert system in said and others in said and "\n" not in said


@pytest.mark.parametrize(
    ("study", "pair"),
    [
        ("residual3d:\n    rows:\n      spatial: ${variant:residual3d.resnet3d,{}}",
         ("residual3d", "two_stream")),
        ("saliency:\n    rows:\n      spatial: ${variant:saliency.fcn,{}}",
         ("saliency", "two_stream")),
    ],
)  # fmt: skip
def test_a_row_name_twice_is_not_composed(
    tmp_path: Path, study: str, pair: tuple[str, str]
) -> None:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "conf/study/wrong.yaml").write_text(f"# @package _global_\nsystems:\n  {study}\n")
    with pytest.raises(InputError) as refused:
        composing.compose(["study=wrong"], root=tmp_path)
    said = str(refused.value)
    assert "spatial" in said and "\n" not in said
    assert all(system in said for system in pair), said
    assert not (tmp_path / "params.yaml").exists()


def test_one_system_runs_by_itself(tmp_path: Path) -> None:
    for name in ("conf", "dvc.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    params = composing.compose(["systems=[saliency]"], root=tmp_path)
    assert list(params.systems) == ["saliency"]
    assert params == config.load(tmp_path / "params.yaml")
    assert params.system("saliency") == config.load(ROOT / "params.yaml").system("saliency")
    own = set(contract.part("saliency", "instances").VERBS)
    filled = {verb for verb, items in params.instances.items() if items}
    assert filled == {*own, "page", "verbs"}
    others = {
        verb
        for name in contract.names()
        if name != "saliency"
        for verb in contract.part(name, "instances").VERBS
    }
    assert others - own and all(params.instances[verb] == {} for verb in others - own)
    for verb in own:
        assert {item["system"] for item in params.instances[verb].values()} == {"saliency"}, verb
    page = params.instances["page"]
    assert page["folders"] == "" and not any("data/" in path for path in page["reads"])
    found = dvc_yaml.load(tmp_path)
    assert "evaluate@saliency" in found and "report@saliency" in found and "page" in found
    groups = {stage.group for stage in found.values()}
    assert not groups & (others - own), groups
    with pytest.raises(InputError, match="expected 'two_stream' among the systems that run"):
        params.system("two_stream")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("systems=[saliency,nobody]", "got 'nobody'"),
        ("systems=nobody", "got 'nobody'"),
        ("systems=[]", "got none"),
        ("systems=", "got none"),
    ],
)
def test_systems_that_cannot_be_chosen(tmp_path: Path, override: str, says: str) -> None:
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    (tmp_path / "params.yaml").write_text("old\n")
    with pytest.raises(InputError) as refused:
        composing.compose([override], root=tmp_path)
    said = str(refused.value)
    assert said.startswith(f"expected systems of {', '.join(contract.names())}, ") and says in said
    assert "\n" not in said
    assert (tmp_path / "params.yaml").read_text() == "old\n"
