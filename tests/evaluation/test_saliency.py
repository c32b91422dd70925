"""The evaluation of maps: numbers by hand, faults, the paper's tables, the part of the page."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from flowsight import files
from flowsight.contract import Folders
from flowsight.datasets.images import pairs as image_pairs
from flowsight.errors import InputError
from flowsight.metrics import saliency as metrics
from flowsight.params import config
from flowsight.params.config import Params
from flowsight.systems.saliency import evaluate as saliency
from flowsight.systems.saliency import paper
from flowsight.systems.saliency import report as page
from flowsight.video import pack

from .conftest import changed, started, write_page

ROOT = Path(__file__).resolve().parents[2]
COST = {"num_parameters": 1000, "multiply_adds": 50_000, "height": 30, "width": 40}


@dataclasses.dataclass(frozen=True)
class Run:
    """A small run: its folders, its parameters, the masks and maps of its test images."""

    root: Path
    params: Params
    folders: Folders
    masks: dict[str, np.ndarray]
    maps: dict[str, dict[str, np.ndarray]]


def png(array: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", array)[1].tobytes())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Twelve pairs of 40 x 30 px, a good row `fcn` and a blurred one `fcn_f`."""
    root = tmp_path_factory.mktemp("run")
    params = config.load(ROOT / "params.yaml")
    params = changed(params, "saliency", evaluate={"num_pictures": 2})
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:30, :40]
    masks = {}
    raw = root / "data/raw/sample_images"
    (raw / "Imgs").mkdir(parents=True)
    for i in range(12):
        item = str(100 + i)
        mask = (rows - rng.integers(8, 22)) ** 2 + (columns - rng.integers(8, 32)) ** 2 < 40
        masks[item] = mask
        image = np.full((30, 40, 3), 60, np.uint8)
        image[mask] = 200
        cv2.imwrite(str(raw / f"Imgs/{item}.jpg"), image)
        cv2.imwrite(str(raw / f"Imgs/{item}.png"), np.where(mask, 255, 0).astype(np.uint8))
    items = root / "data/items/sample_images"
    image_pairs.write_pairs(
        raw, items, split_ids=("1",), test_share=0.5, val_share=0.2, seed=1, max_quarantined=0.0
    )
    found = image_pairs.load_pairs(raw, items, "1")
    folders = Folders(predictions=root / "predictions", items=items, raw=raw)
    maps: dict[str, dict[str, np.ndarray]] = {"fcn": {}, "fcn_f": {}}
    for row, spread in (("fcn", 1.0), ("fcn_f", 4.0)):
        table = []
        for pair in found:
            if pair.subset == "train":
                continue
            soft = cv2.GaussianBlur(masks[pair.item_id].astype(np.float32), (0, 0), spread)
            levels = np.rint(255 * soft).astype(np.uint8)
            maps[row][pair.item_id] = levels
            counts = metrics.confusion(soft > 0.5, masks[pair.item_id])
            table.append((pair.item_id, pair.subset, *counts))
        names = ["item_id", "subset", "tp", "fp", "fn", "tn"]
        own = folders["predictions"] / f"{row}-1"
        own.mkdir(parents=True)
        pd.DataFrame(table, columns=names).to_parquet(own / "predictions.parquet")
        members = [(f"{item}.png", png(levels)) for item, levels in maps[row].items()]
        cost = COST if row == "fcn" else {**COST, "num_parameters": 600, "multiply_adds": 40_000}
        pack.write_pack(own / "maps.zip", members, cost)
    return Run(root, params, folders, masks, maps)


@pytest.fixture(scope="module")
def results(run: Run) -> Path:
    out = run.root / "results/saliency"
    saliency.evaluate(run.params, run.folders, out)
    return out


def test_numbers_are_means_over_the_test_images(run: Run, results: Path) -> None:
    found = json.loads((results / "metrics.json").read_text())
    split = pd.read_csv(run.folders["items"] / "splits/1.csv", dtype=str)
    test = split.loc[split["subset"] == "test", "item_id"].tolist()
    assert found["num_test_images"] == len(test) == 6
    for row in ("fcn", "fcn_f"):
        scores, curves = [], []
        for item in test:
            levels, mask = run.maps[row][item], run.masks[item]
            soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.0 if row == "fcn" else 4.0)
            tp, fp, fn, _ = metrics.confusion(soft > 0.5, mask)
            scores.append(
                (
                    float(metrics.f_beta(tp, fp, fn)),
                    np.abs(levels / 255 - mask).mean(),
                    metrics.s_measure(levels / 255, mask),
                )
            )
            curves.append(
                [
                    float(metrics.f_beta(*metrics.confusion(levels >= t, mask)[:3]))
                    for t in range(256)
                ]
            )
        wanted = np.mean(scores, axis=0)
        names = [f"{row}/{name}" for name in ("f_beta", "mae", "s_measure")]
        assert [found[n] for n in names] == pytest.approx(wanted, abs=1e-5)
        assert found[f"{row}/max_f"] == pytest.approx(np.mean(curves, axis=0).max(), abs=1e-5)
        assert found[f"{row}/f_beta_low"] <= found[f"{row}/f_beta"] <= found[f"{row}/f_beta_high"]
    assert found["fcn/f_beta"] > found["fcn_f/f_beta"]
    assert (found["fcn/num_parameters"], found["fcn_f/multiply_adds"]) == (1000, 40_000)


def test_comparison_is_paired_with_the_row_it_was_slimmed_from(results: Path) -> None:
    found = json.loads((results / "metrics.json").read_text())
    (row,) = pd.read_csv(results / "comparisons.csv").to_dict("records")
    assert (row["row"], row["base"]) == ("fcn_f", "fcn")
    difference = found["fcn_f/f_beta"] - found["fcn/f_beta"]
    assert row["difference"] == pytest.approx(difference, abs=2e-6)
    assert row["low"] <= row["difference"] <= row["high"] < 0
    assert (row["parameters"], row["multiply_adds"]) == (0.6, 0.8)


def test_curves_and_pictures(results: Path) -> None:
    curves = pd.read_csv(results / "curves.csv")
    own = curves[curves["row"] == "fcn"]
    assert own["threshold"].tolist() == list(range(256))
    assert own["recall"].iloc[0] == 1 and own["recall"].is_monotonic_decreasing
    index = pd.read_csv(results / "pictures/index.csv")
    assert len(index) == 2
    strip = cv2.imread(str(results / "pictures" / index["picture"][0]))
    assert strip.shape[1] > 4 * strip.shape[0]  # image, mask and two maps side by side
    assert cv2.imread(str(results / "curves.png")) is not None


def test_the_same_inputs_give_the_same_bytes(run: Run, results: Path, tmp_path: Path) -> None:
    saliency.evaluate(run.params, run.folders, tmp_path / "again")
    for path in results.rglob("*.*"):
        other = tmp_path / "again" / path.relative_to(results)
        assert files.sha256(path) == files.sha256(other), path.name


# the paper


def compared(
    run: Run, name: str | None = None, rows: dict[str, Any] | None = None, recipe: str = "paper"
) -> pd.DataFrame:
    params = changed(run.params, "saliency", **({"rows": rows} if rows else {}))
    images = dataclasses.replace(params.images, name=name or params.images.name)
    params = dataclasses.replace(params, images=images, recipe=recipe)
    scores = pd.DataFrame(
        [("fcn", "1", 0.91), ("fcn_f", "1", 0.9)], columns=["row", "split_id", "f_beta"]
    )
    table = paper.paper_table(scores, params, {"ok": 9, "quarantined": 1})
    assert len(table) == 36
    return table.set_index(["dataset", "item", "metric"])


def test_paper_table_says_why(run: Run) -> None:
    table = compared(run)
    base = table.loc[("MSRA10K", "base", "f_score")]
    assert (base["value"], base["ours"], base["comparable"]) == (0.942, 0.91, False)
    assert "ours is measured on sample_images, the paper's on MSRA10K" in base["why"]
    assert "network vgg16_bn of width 4, not FCN-8s on vgg16" in base["why"]
    assert table.loc[("DUT-OMRON", "f", "f_score"), "ours"] == 0.9
    missing = table.loc[("MSRA10K", "a", "f_score")]
    assert np.isnan(missing["ours"]) and "stands for experiment a" in missing["why"]
    time = table.loc[("MSRA10K", "f", "detection_time")]
    assert np.isnan(time["ours"]) and "stand in docs/performance.md" in time["why"]


def test_the_papers_own_set_up_leaves_only_what_the_paper_leaves_open(run: Run) -> None:
    rows = {
        name: dataclasses.replace(
            started(row, weights="imagenet"),
            network=dataclasses.replace(
                row.network, backbone="vgg16", width=64, border="published"
            ),
        )
        for name, row in run.params.system("saliency").rows.items()
    }
    table = compared(run, name="msra10k", rows=rows)
    why = table.loc[("MSRA10K", "base", "f_score"), "why"]
    assert why == (
        "1 of 10 pairs are absent or quarantined; the paper does not say which images it tests on"
    )
    other = table.loc[("DUT-OMRON", "base", "f_score")]
    assert np.isnan(other["ours"]) and other["why"] == "this run is on MSRA10K"
    small = compared(run, name="msra10k", rows=rows, recipe="small")
    assert "recipe small, not the paper's" in small.loc[("MSRA10K", "base", "f_score"), "why"]


# faults


def test_predictions_of_other_images_are_refused(run: Run, tmp_path: Path) -> None:
    def refused(message: str) -> None:
        folders = Folders({**run.folders, "predictions": tmp_path})
        with pytest.raises(InputError, match=message):
            saliency.evaluate(run.params, folders, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    refused("found no such file; run `dvc repro` for its stage")
    path = tmp_path / "fcn-1/predictions.parquet"
    path.parent.mkdir()
    table = pd.read_parquet(run.folders["predictions"] / "fcn-1/predictions.parquet")
    table.drop(columns="tn").to_parquet(path)
    refused("expected the columns item_id, subset, tp, fp, fn, tn")
    table.iloc[1:].to_parquet(path)
    refused(f"differ in {table['item_id'].iloc[0]}")
    pd.concat([table, table.iloc[:1]]).to_parquet(path)
    refused("repeated ones")


def test_maps_that_are_missing_or_of_another_size_are_refused(run: Run, tmp_path: Path) -> None:
    folders = Folders({**run.folders, "predictions": tmp_path})
    shutil.copytree(run.folders["predictions"], tmp_path, dirs_exist_ok=True)
    (tmp_path / "fcn-1/maps.zip").unlink()
    own = run.maps["fcn"]
    cases = {
        "expected a pack at": None,
        "no item named": {},
        "another size; predict again": {item: levels[1:] for item, levels in own.items()},
    }
    for message, maps in cases.items():
        if maps is not None:
            members = [(f"{item}.png", png(levels)) for item, levels in maps.items()]
            pack.write_pack(tmp_path / "fcn-1/maps.zip", members, COST)
        with pytest.raises(InputError, match=message):
            saliency.evaluate(run.params, folders, tmp_path / "out")


# the page


def test_the_page_shows_it(run: Run, results: Path) -> None:
    history = run.root / "history/sample_images"
    lines = "epoch,lr,train_loss,train_accuracy,val_loss,val_accuracy\n1,0.1,0.5,0.8,,\n"
    history.mkdir(parents=True, exist_ok=True)
    (history / "fcn-1.csv").write_text(lines)
    content = page.content(run.params, Folders(results=results, history=history))
    assert [row["name"] for row in content["rows"]] == ["fcn", "fcn_f"]
    assert content["rows"][1]["cut"] == "plan f, kernels: first"
    assert [card["row"] for card in content["curves"]] == ["fcn"]
    f = next(r for r in content["paper"]["rows"] if (r["dataset"], r["item"]) == ("MSRA10K", "f"))
    assert f["time"] == pytest.approx(67.139 / 84.44)
    assert not content["paper"]["any"]
    html = write_page(
        ["saliency"], params=run.params, results=results.parent, history=history,
        out=run.root / "report",
    )  # fmt: skip
    for text in ("keeps 60.0", "80.0", "None of these pairs may be compared", "plan f, kernels"):
        assert text in html.replace("\u00a0", " "), text
