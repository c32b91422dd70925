"""Parameters are checked once, and a mistake names its key."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from flowsight.errors import InputError
from flowsight.params import config
from flowsight.pipeline import composing

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
    assert params.instances["train_attended"][f"spatial_attended-{first}"]["maps"] == (
        f"temporal-{first}"
    )


@pytest.mark.parametrize("recipe", ["sample", "smoke", "small", "paper"])
def test_every_study_fits_every_recipe(tmp_path: Path, recipe: str) -> None:
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    studies = ",".join(sorted(path.stem for path in (ROOT / "conf/study").glob("*.yaml")))
    params = composing.compose([f"study=[{studies}]", f"recipe={recipe}"], root=tmp_path)
    assert params.alternation.rounds <= params.row("spatial_turns").train.epochs
    too_many = f"alternation.rounds={params.row('spatial_turns').train.epochs + 1}"
    with pytest.raises(InputError, match="at least an epoch for each of alternation"):
        composing.compose(["study=schedules", f"recipe={recipe}", too_many], root=tmp_path)


def test_scientific_notation_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text()
    path.write_text(text.replace("lr: 0.003", "lr: 1e-3"))
    assert config.load(path).rows["spatial"].train.lr == 0.001


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("rows.spatial.train.epoch", 3, "did you mean `epochs`"),
        ("rows.spatial.train.epochs", "many", "expected int at `params.rows.spatial.train.epochs`"),
        ("rows.spatial.train.epochs", True, "expected int"),
        ("rows.spatial.train.lr", -1, "lr must be positive"),
        ("rows.spatial.input.crop_px", 1000, "crop_px"),
        ("rows.spatial.input.modality", "depth", "must be one of rgb, flow"),
        ("rows.spatial.maps", "nobody", "rows.spatial.maps names no row"),
        ("rows.spatial", None, "expected a mapping"),
        ("shards", 4, "expected a list"),
        ("shards", [0, 0], "shards repeat"),
        ("splits.ids", [], "at least one split"),
        ("dataset.name", "../elsewhere", "not a folder name"),
        ("dataset.max_absent", 2, "max_absent must be in [0, 1]"),
        ("flow.backend", "auto", "backend must be one of"),
        ("frames.size", [320], "expected 2 values"),
        ("promotion.min_accuracy", 50, "min_accuracy must be in [0, 1]"),
        ("promotion.max_latency_sec", 0, "max_latency_sec must be positive or null"),
        ("promotion.min_acuracy", 0.5, "did you mean `min_accuracy`"),
        ("evaluate.fusions.attention", {"spatial": "no", "temporal": "no"}, "names no row"),
        ("evaluate.headline", "nobody", "headline names no fusion"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, key: str, value: object, says: str) -> None:
    path = edited(tmp_path, key, value)
    with pytest.raises(InputError) as error:
        config.load(path)
    assert says in str(error.value)
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
    "override", ["dataset=nothing", "rows.spatial.train.lrr=1", "rows.spatial.train.lr=-1", "x"]
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
    assert len([row for row in params.rows.values() if row.system == "two_stream"]) == rows
    assert list(params.evaluate.fusions) == ["two_stream", "attention", *fusions]
    stages = ("train", "train_attended", "alternate", "explain", "learn_attention")
    items = [item for name in stages for item in params.instances[name].values()]
    trained = {f"{row}-1" for item in items for row in (item["row"], item.get("other_row")) if row}
    assert trained == {f"{row}-1" for row in params.rows}


def test_a_variant_differs_only_where_it_says(tmp_path: Path) -> None:
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    rows = composing.compose(["study=[controls,baselines]"], root=tmp_path).rows
    for stream in ("spatial", "temporal"):
        for control in ("constant", "shuffled"):
            expected = replace(rows[f"{stream}_attended"], map_control=control)
            assert rows[f"{stream}_{control}"] == expected
        own = rows[stream]
        plain = replace(own, network=replace(own.network, map_channel=False))
        assert rows[f"two_stream_{stream}"] == plain
        segments = replace(plain, input=replace(plain.input, num_segments=3))
        assert rows[f"tsn_{stream}"] == segments
    changed = composing.compose(["study=controls", "rows.spatial.train.epochs=3"], root=tmp_path)
    assert changed.rows["spatial"].train.epochs == 3


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("${variant:nobody,{map_control:constant}}", "unknown row 'nobody'"),
        ("${variant:spatial,{trian:{epochs:1}}}", "trian"),
    ],
)
def test_a_wrong_variant_is_named(tmp_path: Path, row: str, says: str) -> None:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    study = f"# @package _global_\nrows:\n  other: {row}\n"
    (tmp_path / "conf/study/wrong.yaml").write_text(study)
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
    params = composing.compose(["study=layers", f"rows.spatial.network.backbone={backbone}",
                                "recipe=paper"], root=tmp_path)  # fmt: skip
    for stream in ("spatial", "temporal"):
        for row, layers in (("block1", names[:1]), ("block2", names[1:2]), ("blocks", names)):
            found = params.rows[f"{stream}_{row}"]
            assert list(found.network.target_layers) == layers
            assert found.explains is not None and found.explains.row == stream
    # maps of other layers, of the networks that there are: nothing but phase 2 is trained for them
    train = params.instances["train"]
    assert {key for key, item in train.items() if item["system"] == "two_stream"} == {
        f"{stream}-{split}" for stream in ("spatial", "temporal") for split in params.splits.ids
    }
    first = params.splits.ids[0]
    assert params.instances["explain"][f"spatial_block1-{first}"]["of"] == f"spatial-{first}"
    assert f"spatial_block1-{first}" not in params.instances["attention"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("explains:{row:nobody}", "explains.row names no row: 'nobody'"),
        ("explains:{row:spatial_attended}", "explains.row must name a phase-1 row"),
        ("explains:{row:temporal}", "must be as rows.temporal"),
        ("explains:{row:spatial},network:{dropout:0.9}", "must be as rows.spatial"),
        ("explains:{row:spatial},maps:temporal", "init and maps must be null"),
        ("explains:{row:spatial,key_every:0}", "key_every must be at least 1"),
        ("explains:{row:spatial,through:spatial}", "must name a row of the other stream"),
        ("explains:{row:spatial,through:temporal,key_every:2}", "no key frames"),
        ("explains:{row:spatial,layer:x}", "unknown parameter .*explains.layer"),
    ],
)
def test_explaining_rows_that_cannot_be(tmp_path: Path, override: str, message: str) -> None:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    study = f"# @package _global_\nrows:\n  other: ${{variant:spatial,{{{override}}}}}\n"
    (tmp_path / "conf" / "study" / "wrong.yaml").write_text(study)
    with pytest.raises(InputError, match=message) as refused:
        composing.compose(["study=wrong"], root=tmp_path)
    assert "\n" not in str(refused.value)


def test_a_row_without_a_network_scores_no_clip(tmp_path: Path) -> None:
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    with pytest.raises(InputError, match="spatial_keys only makes maps"):
        composing.compose(
            ["study=key_frames", "evaluate.fusions.key_frames.spatial=spatial_keys"], root=tmp_path
        )
