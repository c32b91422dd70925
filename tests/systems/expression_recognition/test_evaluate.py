"""From predictions to the page: numbers by scikit-learn and torchmetrics, files twice the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torchmetrics.classification import MulticlassAccuracy

from flowsight.contract import Shelf
from flowsight.errors import InputError
from flowsight.evaluation import published
from flowsight.files import sha256
from flowsight.nn import checkpoint
from flowsight.reporting import formats
from flowsight.serving.memory import NO_LIMITS
from flowsight.systems.expression_recognition import draw, evaluate, judge, predict, report, serve
from flowsight.systems.expression_recognition import train as training


@pytest.fixture(scope="module")
def classes(faces: Path) -> list[str]:
    return pd.read_csv(faces / "items/classes.csv")["label"].tolist()


@pytest.fixture
def folders(
    job: Callable[..., Any], faces: Path, classes: list[str], tmp_path: Path
) -> dict[str, Path]:
    """Predictions of both rows with weights of chance."""
    for seed, name in enumerate(job().block.rows):
        torch.manual_seed(seed)
        own = job(name, checkpoint=tmp_path / name, out=tmp_path / "predictions" / f"{name}-1")
        state = training.begin(job().row, len(classes), None).state_dict()
        checkpoint.save(state, own.checkpoint / "model.pt")
        predict.predict(own)
    return {"predictions": tmp_path / "predictions", "items": faces / "items", "raw": faces / "raw"}


def test_predictions(job: Callable[..., Any], folders: dict[str, Path], classes: list[str]) -> None:
    path = folders["predictions"] / "tiny-1"
    table = pd.read_parquet(path / "predictions.parquet")
    assert list(table)[3:] == [f"logit_{name}" for name in classes]
    assert table["item_id"].is_monotonic_increasing
    assert table["subset"].value_counts().to_dict() == {"test": 16, "val": 16}
    meta = json.loads((path / "meta.json").read_text())
    assert meta["num_crops"] == 10
    own = job(checkpoint=folders["predictions"].parent / "tiny", out=path.parent / "again")
    predict.predict(own)
    assert sha256(path.parent / "again/predictions.parquet") == sha256(path / "predictions.parquet")


def test_numbers(params: Any, folders: dict[str, Path], classes: list[str], tmp_path: Path) -> None:
    out = tmp_path / "results"
    out.mkdir()
    evaluate.evaluate(params, folders, out)
    table = pd.read_csv(out / "per_split.csv")
    found = json.loads((out / "metrics.json").read_text())
    raw = pd.read_parquet(folders["predictions"] / "tiny-1/predictions.parquet")
    raw = raw[raw["subset"] == "test"]
    truth = raw["label"].map(classes.index).to_numpy()
    logits = raw[[f"logit_{name}" for name in classes]].to_numpy()
    best = logits.argmax(axis=1)
    own = table[table["row"] == "tiny"].iloc[0]
    assert own["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(truth, best), abs=1e-6)
    expected = sklearn_metrics.f1_score(truth, best, average="macro", zero_division=0)
    assert own["macro_f1"] == pytest.approx(expected, abs=1e-6)
    macro = MulticlassAccuracy(len(classes), average="macro")
    assert own["mean_class"] == pytest.approx(
        macro(torch.tensor(logits), torch.tensor(truth)).item(), abs=1e-6
    )
    assert (found["num_test_images"], found["num_duplicates"]) == (16, 1)
    fresh = (raw["item_id"] != "test/sad/p03_0").to_numpy()
    assert own["accuracy_without_duplicates"] == pytest.approx(
        (best == truth)[fresh].mean(), abs=1e-6
    )
    assert found["tiny/accuracy_low"] <= found["tiny/accuracy"] <= found["tiny/accuracy_high"]
    recalls = sklearn_metrics.recall_score(truth, best, average=None, zero_division=0)
    assert [found[f"tiny/recall/{name}"] for name in classes] == pytest.approx(recalls, abs=1e-6)
    pairs = pd.read_csv(out / "confusions.csv")
    assert pairs[pairs["row"] == "tiny"]["count"].sum() == 16
    gains = pd.read_csv(out / "comparisons.csv")
    assert gains[["row", "base"]].values.tolist() == [["tiny_second", "tiny"]]
    paper = pd.read_csv(out / "paper_table.csv", keep_default_na=False)
    assert not paper["comparable"].any() and (paper["why"] != "").all()


def test_other_predictions_are_refused(
    params: Any, folders: dict[str, Path], tmp_path: Path
) -> None:
    path = folders["predictions"] / "tiny-1/predictions.parquet"
    table = pd.read_parquet(path)
    table.iloc[1:].to_parquet(path)
    with pytest.raises(InputError, match=r"predictions of the 32 val and test pictures.*got 31"):
        evaluate.evaluate(params, folders, tmp_path)
    table.rename(columns={"logit_sad": "logit_bored"}).to_parquet(path)
    with pytest.raises(InputError, match=r"expected the columns .*logit_sad"):
        evaluate.evaluate(params, folders, tmp_path)
    path.unlink()
    with pytest.raises(InputError, match="found no such file; run `dvc repro`"):
        evaluate.evaluate(params, folders, tmp_path)


def test_figures_and_page(params: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    evaluate.evaluate(params, folders, results)
    hashes = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        draw.draw(params, folders, results, tmp_path / name)
        hashes.append([sha256(p) for p in sorted((tmp_path / name).iterdir())])
    assert hashes[0] == hashes[1] and len(hashes[0]) == 2
    system = report.content(params, results, tmp_path / "a", tmp_path / "history")
    filters = ("percent", "points", "number", "plural")
    page = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True)
    page.filters |= {name: getattr(formats, name) for name in filters}
    template = Path(report.__file__).with_name("report.html.j2").read_text()
    html = page.from_string(template).render(system=system)
    assert "1 of which have the bytes of a training picture" in html
    assert "not what somebody feels" in html and "73.28" in html
    assert html.count("data:image/png;base64,") == 2


def test_served_answers_are_the_stages(
    block: Any, params: Any, folders: dict[str, Path], classes: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "tiny_second.pt").write_bytes((tmp_path / "tiny_second/model.pt").read_bytes())
    description = {
        "row": "tiny_second",
        "classes": classes,
        "files": {
            "tiny_second": {
                "file": "tiny_second.pt",
                "sha256": sha256(folder / "tiny_second.pt"),
            }
        },
    }
    shelf = Shelf(folder, description, {"tiny_second": block.rows["tiny_second"]}, "cpu")
    served = serve.restore(shelf)
    bundle: Any = SimpleNamespace(served=served)
    table = pd.read_parquet(folders["predictions"] / "tiny_second-1/predictions.parquet")
    row = table.iloc[0]
    path = folders["raw"] / f"{row['item_id']}.png"
    loaded = serve.load(bundle, path, attention=True, limits=NO_LIMITS, update=lambda *told: None)
    found = serve.predict(bundle, loaded, attention=True, seconds={}, update=lambda *told: None)
    logits = row[[f"logit_{name}" for name in classes]].to_numpy(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(found.probs, expected, rtol=1e-4)
    record = found.named("a.png", {}).record(3)
    assert record["label"] == classes[int(expected.argmax())] and len(record["classes"]) == 3
    assert set(serve.OUTPUTS) == (set(record) | set(found.requested())) - {"image", "seconds"}
    assert found.levels is not None and found.levels.shape == (48, 48)
    serve.write_overlay(found, tmp_path / "overlay.png")
    assert (tmp_path / "overlay.png").stat().st_size > 1000
    assert found.light().pixels is None
    with pytest.raises(InputError, match="expected 1 or 10 crops, got 5"):
        serve.with_views(served, None, 5)


def test_what_the_gate_reads(
    params: Any, folders: dict[str, Path], faces: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results/expression_recognition"
    results.mkdir(parents=True)
    evaluate.evaluate(params, folders, results)
    (tmp_path / "data/items").mkdir(parents=True)
    (tmp_path / "data/items/sample_faces").symlink_to(faces / "items")
    items = judge.items(tmp_path, params, "1")
    assert len(items) == 64 and items["subset"].isin(["train", "val", "test"]).all()
    bundle = {"row": "tiny", "split": "1", "system": "expression_recognition"}
    scores = judge.scores(tmp_path, bundle)
    test = items[items["subset"] == "test"]
    assert set(scores["item_id"]) == set(test["item_id"]) and scores["score"].isin([0, 1]).all()
    assert set(judge.KIND.kept) <= set(judge.per_split(results))
    quality = judge.quality(tmp_path, params)
    assert (quality["data_gate"], quality["num_duplicates"]) == ("passed", "1")


def test_printed_numbers() -> None:
    table = published.read("expression_recognition")
    assert dict(zip(table["method"], table["value"], strict=True)) == {
        "VGG": 73.28,
        "AlexNet (weighted loss)": 58.0,
        "PSR (VGG-16)": 60.68,
        "Norface 2024": 68.69,
    }
    assert set(table["split"]) == {"private_test", "not_stated"}
