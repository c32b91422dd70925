"""From predictions to results/two_stream."""

import dataclasses
import hashlib
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from flowsight import contract
from flowsight.errors import InputError
from flowsight.evaluation import predictions
from flowsight.pipeline import composing
from flowsight.systems.two_stream import evaluate as evaluation
from flowsight.systems.two_stream.params import FusionParams

from .conftest import changed, folders_of

World = SimpleNamespace


@pytest.fixture(scope="module")
def results(world_template: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the unchanged world."""
    out = tmp_path_factory.mktemp("results") / "two_stream"
    evaluation.evaluate(world_template.params, world_template.folders, out)
    return out


@pytest.fixture
def world(world_template: World, tmp_path: Path) -> World:
    """A copy of the world whose files a test may change."""
    root = tmp_path / "world"
    shutil.copytree(world_template.root, root)
    return World(**vars(world_template) | {"root": root, "folders": folders_of(root)})


def run(world: World, out: Path, **block: object) -> dict[str, float]:
    params = changed(world.params, "two_stream", evaluate=block)
    evaluation.evaluate(params, world.folders, out)
    return pd.read_json(out / "metrics.json", typ="series").to_dict()


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_numbers_equal_plain_loops(world_template: World, results: Path) -> None:
    """Top-1 of each stream recomputed from the parquet files, without our metrics."""
    metrics = pd.read_json(results / "metrics.json", typ="series").to_dict()
    for fusion, suffix in (("two_stream", ""), ("attention", "_attended")):
        for stream in ("spatial", "temporal"):
            shares = []
            for split in ("1", "2"):
                folder = world_template.folders["predictions"] / f"{stream}{suffix}-{split}"
                table = pd.read_parquet(folder / "predictions.parquet")
                table = table[table["subset"] == "test"]
                logits = table.filter(like="logit_")
                best = logits.idxmax(axis=1).str.removeprefix("logit_")
                shares.append((best == table["label"]).mean())
            key = f"{fusion}/{stream}/top1"
            assert metrics[key] == pytest.approx(np.mean(shares), abs=1e-6)
            assert metrics[f"{key}_std"] == pytest.approx(np.std(shares, ddof=1), abs=1e-6)
            assert metrics[f"{key}_low"] <= metrics[key] <= metrics[f"{key}_high"]


def test_fused_predictions_use_the_recorded_weight(results: Path) -> None:
    joined = pd.read_parquet(results / "predictions.parquet")
    weights = pd.read_csv(results / "per_split.csv", dtype={"split_id": str})
    keys = ["fusion", "split_id", "clip_id"]
    probs = [column for column in joined if column.startswith("prob_")]
    parts = {s: g.set_index(keys)[probs].sort_index() for s, g in joined.groupby("stream")}
    for row in weights[weights["stream"] == "spatial"].itertuples():
        place = (row.fusion, row.split_id)
        mixed = (
            row.weight * parts["spatial"].loc[place]
            + (1 - row.weight) * parts["temporal"].loc[place]
        )
        np.testing.assert_allclose(mixed, parts["fused"].loc[place], atol=1e-6)
    assert set(joined["subset"]) == {"val", "test"}


def test_results_have_what_dvc_and_the_report_read(results: Path, world_template: World) -> None:
    assert {p.name for p in results.iterdir()} == {
        "metrics.json", "per_split.csv", "comparisons.csv", "localization.csv", "paper_table.csv",
        "predictions.parquet", "confusion", "accuracy.png", "overlays",
    }  # fmt: skip
    pairs = pd.read_csv(results / "confusion/attention-fused.csv")
    assert list(pairs) == ["actual", "predicted"]
    metrics = pd.read_json(results / "metrics.json", typ="series").to_dict()
    tested = len(pairs)
    assert (pairs["actual"] == pairs["predicted"]).mean() == pytest.approx(
        metrics["attention/fused/top1"], abs=1e-6
    )
    assert (metrics["num_quarantined"], metrics["num_absent"]) == (2, 0)
    assert metrics["num_test_clips"] <= tested
    assert len(pd.read_csv(results / "overlays/index.csv")) == 2
    assert metrics["localization/spatial/pointing_game"] > metrics["localization/spatial/chance"]


def test_same_input_same_bytes(world_template: World, results: Path, tmp_path: Path) -> None:
    run(world_template, tmp_path / "again")
    assert hashes(tmp_path / "again") == hashes(results)


def test_the_headline_is_compared_with_every_other_fusion(
    world_template: World, tmp_path: Path
) -> None:
    two, attended = world_template.params.system("two_stream").evaluate.fusions.values()
    fusions = {
        "two_stream": two,
        "attention": attended,
        "to_spatial": FusionParams(spatial=attended.spatial, temporal=two.temporal),
        "to_temporal": FusionParams(spatial=two.spatial, temporal=attended.temporal),
    }
    fast = {"num_overlays": 0, "bootstrap_samples": 0, "fusions": fusions}
    metrics = run(world_template, tmp_path / "out", headline="attention", **fast)
    table = pd.read_csv(tmp_path / "out/comparisons.csv").set_index(["method", "baseline"])
    between = [
        pair for pair in table.index if pair[0].endswith("/fused") == pair[1].endswith("/fused")
    ]
    assert len(table.index) == len(set(table.index)), "no pair twice"
    assert [(m, b) for m, b in between if m.endswith("/fused")] == [
        ("attention/fused", "two_stream/fused"),
        ("to_spatial/fused", "two_stream/fused"),
        ("to_temporal/fused", "two_stream/fused"),
        ("attention/fused", "to_spatial/fused"),
        ("attention/fused", "to_temporal/fused"),
    ]
    for (method, baseline), row in table.iterrows():
        expected = metrics[f"{method}/top1"] - metrics[f"{baseline}/top1"]
        assert row["difference"] == pytest.approx(expected, abs=1e-9)
    assert table.loc[("attention/spatial", "to_spatial/spatial"), "difference"] == 0


def test_weight_does_not_see_test_clips(world: World, tmp_path: Path) -> None:
    """Test clips with shuffled scores change the numbers and leave every weight alone."""
    fast = {"num_overlays": 0, "bootstrap_samples": 0}
    before = run(world, tmp_path / "before", **fast)
    rng = np.random.default_rng(0)
    for path in sorted(world.folders["predictions"].glob("*/predictions.parquet")):
        table = pd.read_parquet(path)
        columns = [c for c in table if c.startswith("logit_")]
        test = (table["subset"] == "test").to_numpy()
        table.loc[test, columns] = rng.permuted(table.loc[test, columns].to_numpy(), axis=1)
        table.to_parquet(path, index=False)
    after = run(world, tmp_path / "after", **fast)
    for fusion in ("two_stream", "attention"):
        assert before[f"{fusion}/fusion_weight"] == after[f"{fusion}/fusion_weight"]
    assert before["attention/fused/top1"] != after["attention/fused/top1"]


def test_no_validation_clips_weigh_streams_equally(world: World, tmp_path: Path) -> None:
    for split in sorted(world.folders["splits"].glob("*.csv")):
        table = pd.read_csv(split)
        table[table["subset"] != "val"].to_csv(split, index=False)
    for path in sorted(world.folders["predictions"].glob("*/predictions.parquet")):
        table = pd.read_parquet(path)
        table[table["subset"] != "val"].to_parquet(path, index=False)
    metrics = run(world, tmp_path / "out", num_overlays=0)
    assert metrics["attention/fusion_weight"] == 0.5
    table = pd.read_csv(tmp_path / "out/per_split.csv")
    assert set(table["weight_source"]) == {"default"}


def test_one_split_has_no_spread_and_no_draws_no_interval(
    make: Callable[..., World], tmp_path: Path
) -> None:
    world = make(tmp_path / "w", splits=("1",), bootstrap_samples=0, num_overlays=0)
    metrics = run(world, tmp_path / "out")
    assert not [key for key in metrics if key.endswith(("_std", "_low", "_high"))]
    assert pd.read_csv(tmp_path / "out/comparisons.csv")["low"].isna().all()


def test_without_truth_there_is_no_localization(world: World, tmp_path: Path) -> None:
    shutil.rmtree(world.folders["truth"])
    metrics = run(world, tmp_path / "out", num_overlays=0)
    assert not [key for key in metrics if key.startswith("localization")]
    assert len(pd.read_csv(tmp_path / "out/localization.csv")) == 0


def test_where_no_row_sees_maps_none_are_read(world: World, tmp_path: Path) -> None:
    two = world.params.system("two_stream").evaluate.fusions["two_stream"]
    del world.folders["attention"]
    metrics = run(world, tmp_path / "out", fusions={"two_stream": two}, headline="two_stream")
    assert not [key for key in metrics if key.startswith("localization")]
    assert len(pd.read_csv(tmp_path / "out/overlays/index.csv")) == 0
    with pytest.raises(InputError, match=r"expected .*attention"):
        run(world, tmp_path / "out")


def test_stages_run_as_dvc_runs_them(
    make: Callable[..., World],
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The scripts in this process (each costs seconds of imports in one of its own)."""

    def stage(name: str, *arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(repository / "stages" / f"{name}.py"), run_name="__main__")

    def refusal(name: str, *arguments: object) -> str:
        with pytest.raises(SystemExit) as refused:
            stage(name, *arguments)
        assert refused.value.code == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        return message

    world = make(tmp_path / "w", splits=("1",), classes=("push", "run"), num_groups=3)
    (tmp_path / "conf").symlink_to(repository / "conf")
    composing.compose(["systems=[two_stream]"], root=tmp_path)
    monkeypatch.chdir(tmp_path)
    folders = [part for name, path in world.folders.items() for part in (f"--{name}", path)]
    evaluated = ["evaluate", "two_stream", *folders, "--out", "results/two_stream",
                 "--metrics", "metrics/two_stream.json"]  # fmt: skip
    stage(*evaluated)
    found = (tmp_path / "results/two_stream/metrics.json").read_bytes()
    assert (tmp_path / "metrics/two_stream.json").read_bytes() == found
    reported = ["report", "two_stream", "--results", "results/two_stream", "--history",
                "w/history", "--out", "parts/two_stream"]  # fmt: skip
    assert refusal(*reported).startswith("error: expected --manifest PATH, as dvc.yaml gives it")
    stage(*reported, "--manifest", "w/manifest")
    stage("page", "--parts", "parts", "--manifest", "w/manifest", "--validation", "w/validation",
          "--out", "results/report")  # fmt: skip
    assert (tmp_path / "results/report/index.html").stat().st_size > 50_000
    (world.folders["predictions"] / "spatial-1/predictions.parquet").unlink()
    assert refusal(*evaluated).startswith("error: expected predictions in")


def test_neither_stage_loads_torch() -> None:
    code = (
        "import sys, flowsight.systems.two_stream.evaluate, flowsight.reporting; "
        "sys.exit(' '.join({'torch', 'torchvision', 'mlflow', 'lightning'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def edit_parquet(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    change(pd.read_parquet(path)).to_parquet(path, index=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.iloc[1:], "val and test clips"),
        (lambda t: t.assign(subset="test"), "val and test clips"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "repeated"),
        (lambda t: t.assign(label=t["label"].iloc[::-1].to_numpy()), "manifest's labels"),
        (lambda t: t.assign(label="juggle"), "labels of classes.csv"),
        (lambda t: t.drop(columns=["logit_push"]), "classes.csv"),
        (lambda t: t.assign(logit_push=np.float32(np.nan)), "finite logits"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(
    world: World,
    tmp_path: Path,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    message: str,
) -> None:
    edit_parquet(world.folders["predictions"] / "temporal-2/predictions.parquet", change)
    with pytest.raises(InputError, match=message):
        run(world, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_predictions_name_the_file(world: World, tmp_path: Path) -> None:
    (world.folders["predictions"] / "spatial_attended-1/predictions.parquet").unlink()
    with pytest.raises(InputError, match=r"spatial_attended-1/predictions\.parquet"):
        run(world, tmp_path / "out")


def test_earlier_results_survive_a_failure(world: World, tmp_path: Path) -> None:
    run(world, tmp_path / "out", num_overlays=0)
    before = hashes(tmp_path / "out")
    next((world.folders["attention"] / "spatial-1").rglob("*.zip")).unlink()
    with pytest.raises(InputError, match="pack"):
        run(world, tmp_path / "out")
    assert hashes(tmp_path / "out") == before


def test_unknown_system_is_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'two_stream'"):
        contract.part("two_strem", "evaluate")


def test_streams_with_other_clips_are_not_joined(world_template: World) -> None:
    folder = world_template.folders["predictions"] / "spatial-1"
    scores = predictions.read_scores(folder, world_template.classes)
    other = dataclasses.replace(scores, clip_ids=np.char.add(scores.clip_ids, "x"))
    with pytest.raises(InputError, match="same clips"):
        predictions.check_joined(scores, other, ("spatial", "temporal"))
