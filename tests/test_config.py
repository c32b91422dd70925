"""Parameters are checked once, and a mistake names its key."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from flowsight import composing, config
from flowsight.errors import InputError

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
        ("evaluate.fusions", {"x": {"spatial": "no", "temporal": "no"}}, "names no row"),
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
