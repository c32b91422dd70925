"""Networks over clips: from predictions to results/residual3d and its part of the page."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from flowsight.contract import Folders
from flowsight.errors import InputError
from flowsight.files import write_csv
from flowsight.params.config import Params
from flowsight.systems.residual3d import evaluate as residual3d
from flowsight.systems.residual3d import leakage, paper, regions
from flowsight.video import pack

from .conftest import changed, folders_of, started, write_page

World = SimpleNamespace
ROWS = ("resnet3d", "resnet3d_attention")


@pytest.fixture(scope="module")
def clip_world(world_template: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The made-up world with the views' hits, and the attention of the network that has it."""
    root = tmp_path_factory.mktemp("clips") / "world"
    shutil.copytree(world_template.root, root)
    rng = np.random.default_rng(4)
    for split_id in ("1", "2"):
        for row in ROWS:
            path = root / f"predictions/{row}-{split_id}/predictions.parquet"
            table = pd.read_parquet(path)
            table["views_right"] = rng.integers(0, 5, len(table)) / 4
            table.to_parquet(path, index=False)
    for clip in world_template.clips:
        masks = np.load(root / f"truth/{clip}.npz")["masks"]
        maps = np.stack([cv2.resize(255 * m.astype(np.uint8), (32, 24)) for m in masks])
        for split_id in ("1", "2"):
            pack.write_maps(root / f"spatial/resnet3d_attention-{split_id}/{clip}.zip", maps, {})
    folders = Folders({**folders_of(root), "attention": root / "spatial"})
    return SimpleNamespace(**{**vars(world_template), "root": root, "folders": folders})


@pytest.fixture(scope="module")
def results(clip_world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results") / "residual3d"
    residual3d.evaluate(clip_world.params, clip_world.folders, out)
    return out


def test_numbers_are_those_of_the_predictions(clip_world: World, results: Path) -> None:
    """Counted once more with pandas, without the package."""
    metrics = json.loads((results / "metrics.json").read_text())
    for row in ROWS:
        top1, clips = [], []
        for split_id in ("1", "2"):
            folder = clip_world.folders["predictions"] / f"{row}-{split_id}"
            table = pd.read_parquet(folder / "predictions.parquet")
            table = table[table["subset"] == "test"]
            logits = table.filter(like="logit_")
            best = logits.idxmax(axis=1).str.removeprefix("logit_")
            top1.append((best == table["label"]).mean())
            clips.append(table["views_right"].mean())
        assert metrics[f"{row}/top1"] == pytest.approx(np.mean(top1), abs=1e-6)
        assert metrics[f"{row}/top1_std"] == pytest.approx(np.std(top1, ddof=1), abs=1e-6)
        assert metrics[f"{row}/clip_top1"] == pytest.approx(np.mean(clips), abs=1e-6)
        assert metrics[f"{row}/top1_low"] <= metrics[f"{row}/top1"] <= metrics[f"{row}/top1_high"]
    gains = pd.read_csv(results / "comparisons.csv")
    assert gains[["row", "baseline"]].values.tolist() == [["resnet3d_attention", "resnet3d"]]
    wanted = metrics["resnet3d_attention/top1"] - metrics["resnet3d/top1"]
    assert gains["difference"][0] == pytest.approx(wanted, abs=2e-6)
    assert metrics["num_groups_checked"] == 2 * 4


def test_twice_the_same_bytes(clip_world: World, results: Path, tmp_path: Path) -> None:
    residual3d.evaluate(clip_world.params, clip_world.folders, tmp_path / "again")
    names = sorted(p.relative_to(results) for p in results.rglob("*") if p.is_file())
    assert len(names) > 8
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (results / name).read_bytes(), name


def test_true_maps_find_the_actor(results: Path) -> None:
    metrics = json.loads((results / "metrics.json").read_text())
    key = "localization/resnet3d_attention"
    assert metrics[f"{key}/pointing_game"] > 0.95 > 0.7 > metrics[f"{key}/chance"]
    assert metrics[f"{key}/iou"] > 0.6
    table = pd.read_csv(results / "localization.csv")
    assert set(table["subset"]) == {"test"}, "only test clips have maps"


def test_pictures_show_both_regions(results: Path) -> None:
    index = pd.read_csv(results / "regions/index.csv")
    assert len(index) == 2 and (index["iou"] > 0.5).all() and (index["pointing_game"] > 0.5).all()
    picture = cv2.imread(str(results / "regions" / index["picture"][0]))[..., ::-1].astype(int)
    for colour in (regions.TRUE_BLUE, regions.ATTENTION_RED):
        near = np.abs(picture - np.array(colour)).max(axis=-1) < 40
        assert near.sum() > 50


def test_the_map_of_another_place_does_not_agree(clip_world: World, tmp_path: Path) -> None:
    clip = clip_world.clips[0]
    masks = np.load(clip_world.root / f"truth/{clip}.npz")["masks"]
    maps = np.zeros((len(masks), 24, 32), np.uint8)
    maps[:, :3, 28:] = 255
    pack.write_maps(tmp_path / "maps.zip", maps, {})
    frames = clip_world.root / f"frames/0/{clip}.zip"
    found = regions.outline(frames, tmp_path / "maps.zip", masks)
    assert (found.iou, found.pointing_game) == (0.0, 0.0)
    unknown = regions.outline(frames, tmp_path / "maps.zip", None)
    assert unknown.iou is None and unknown.frame_index == len(maps) // 2


def changed_split(world: World, tmp_path: Path) -> Folders:
    splits = tmp_path / "splits"
    shutil.copytree(world.folders["splits"], splits)
    table = pd.read_csv(splits / "2.csv")
    table.loc[table.index[table["subset"] == "train"][0], "subset"] = "test"
    write_csv(table, splits / "2.csv")
    return Folders({**world.folders, "splits": splits})


def test_a_group_on_two_sides_is_refused(clip_world: World, tmp_path: Path) -> None:
    folders = changed_split(clip_world, tmp_path)
    with pytest.raises(InputError, match=r"split 2, got 1 on several, first g\d\d in test and tr"):
        residual3d.evaluate(clip_world.params, folders, tmp_path / "out")
    assert not (tmp_path / "out").exists(), "no number is told"


def on_ucf(world: World, rows: dict[str, Any] | None = None, **changes: object) -> Params:
    dataset = dataclasses.replace(world.params.dataset, name="ucf101", adapter="ucf101")
    params = changed(world.params, "residual3d", **({"rows": rows} if rows else {}))
    return dataclasses.replace(params, dataset=dataset, **changes)


def test_too_good_from_scratch_is_a_warning(clip_world: World) -> None:
    top1 = {("resnet3d", "1"): 0.72, ("resnet3d_attention", "1"): 0.5, ("resnet3d", "2"): 0.9}
    (text,) = leakage.warnings(top1, on_ucf(clip_world))
    assert text.startswith("resnet3d reaches 72.0 % on split 1 from scratch, the literature 40 to")
    assert leakage.warnings(top1, clip_world.params) == [], "that is known of UCF-101 only"
    rows = clip_world.params.system("residual3d").rows
    rows = {**rows, "resnet3d": started(rows["resnet3d"], weights="kinetics.pth")}
    assert leakage.warnings(top1, on_ucf(clip_world, rows=rows)) == []


def test_paper_table(clip_world: World, results: Path) -> None:
    table = pd.read_csv(results / "paper_table.csv", keep_default_na=False)
    assert len(table) == 14 and set(table["comparable"]) == {False}
    ours = table[table["ours"] != ""]
    assert set(ours["method"]) == {
        "ResNet3D", "ResNet3D-50", "Residual attention (proposed)",
    }  # fmt: skip
    assert ours["why"].str.startswith("ours is measured on sample").all()
    c3d = table[table["method"] == "C3D"]
    assert set(c3d["why"]) == {"no row in the parameters stands for C3D"}


def test_what_may_be_compared(clip_world: World) -> None:
    """The paper's network and input on split 1: table 1 may be compared, table 2 may not."""
    rows = dict(clip_world.params.system("residual3d").rows)
    for name in ROWS:
        row = clip_world.params.row(name)
        rows[name] = dataclasses.replace(
            row,
            network=dataclasses.replace(row.network, backbone="resnet3d_50", width=64),
            input=dataclasses.replace(row.input, resize_px=256, crop_px=224, fps=16.0),
        )
    params = on_ucf(clip_world, recipe="paper", rows=rows)
    scores = pd.DataFrame(
        {"row": [*ROWS, *ROWS], "split_id": ["1", "1", "2", "2"], "top1": [0.44, 0.46, 0.4, 0.42]}
    )
    table = paper.paper_table(scores, params, {"ok": 13320})
    first = table[(table["table"] == "1") & (table["method"] != "DenseNet3D")]
    assert first["ours"].tolist() == [44.0, 46.0] and first["comparable"].all()
    second = table[(table["table"] == "2") & (table["dataset"] == "UCF-101")]
    attended = second[second["method"] == "Residual attention (proposed)"].iloc[0]
    assert attended["ours"] == 44.0 and not attended["comparable"]
    assert "table 2 cannot be training from scratch" in attended["why"]
    lost = paper.paper_table(scores, params, {"ok": 44, "absent": 13276})
    assert not lost["comparable"].any()


def test_predictions_without_views_are_refused(clip_world: World, tmp_path: Path) -> None:
    predictions = tmp_path / "predictions"
    shutil.copytree(clip_world.folders["predictions"], predictions)
    path = predictions / "resnet3d-1/predictions.parquet"
    pd.read_parquet(path).drop(columns="views_right").to_parquet(path, index=False)
    folders = Folders({**clip_world.folders, "predictions": predictions})
    with pytest.raises(InputError, match=r"resnet3d-1/predictions.parquet; predict again"):
        residual3d.evaluate(clip_world.params, folders, tmp_path / "out")


def test_the_page_has_its_part(clip_world: World, results: Path, tmp_path: Path) -> None:
    page = write_page(
        ["residual3d"],
        results=results.parent,
        history=clip_world.root / "history",
        validation=clip_world.root / "validation",
        manifest=clip_world.root / "manifest",
        params=clip_world.params,
        out=tmp_path / "report",
    )
    assert "3D residual attention networks" in page and "72.8" in page
    assert "8 groups were looked at" in page
    assert page.count("<img ") == 1 + 2  # the bar chart and two figures
    assert page.count("<polyline") == 2 * 2 * 2 * 2  # rows x splits x subsets x quantities


def test_without_attention_no_maps_are_read(clip_world: World, tmp_path: Path) -> None:
    rows = {"resnet3d": clip_world.params.row("resnet3d")}
    params = changed(clip_world.params, "residual3d", rows=rows)
    folders = Folders({k: v for k, v in clip_world.folders.items() if k != "attention"})
    residual3d.evaluate(params, folders, tmp_path / "out")
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert not [key for key in metrics if key.startswith("localization")]
    assert len(pd.read_csv(tmp_path / "out/regions/index.csv")) == 0


def test_rows_and_their_baselines(clip_world: World) -> None:
    assert residual3d.attended_rows(clip_world.params) == ["resnet3d_attention"]
    assert residual3d.baseline_of("resnet3d_attention", clip_world.params) == "resnet3d"
    assert residual3d.baseline_of("resnet3d", clip_world.params) is None
