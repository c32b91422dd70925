"""Several runs as one: by hand, and one run beside the evaluation's own numbers."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from flowsight.classifiers import localization, several_runs
from flowsight.cli import app
from flowsight.errors import InputError
from flowsight.metrics.bootstrap import Resampling
from flowsight.metrics.fusion import FusionWeight
from flowsight.systems.two_stream import scoring
from flowsight.systems.two_stream.scoring import STREAMS, SplitResult

DRAWS = Resampling(num_samples=500, confidence=0.95, seed=3)


def write(folder: Path, right: dict[str, dict[str, str]]) -> Path:
    """Predictions of rows: method -> split -> a 0 or 1 a clip; a validation clip beside them."""
    lines = []
    for row, splits in right.items():
        for split, hits in splits.items():
            for number, hit in enumerate(hits):
                clip, predicted = f"{split}{number}", "run" if hit == "1" else "walk"
                lines.append((row, split, clip, "test", "run", predicted))
            lines.append((row, split, "validation", "val", "run", "walk"))
    columns = ["row", "split_id", "clip_id", "subset", "label", "predicted"]
    folder.mkdir(exist_ok=True)
    pd.DataFrame(lines, columns=columns).to_parquet(folder / "predictions.parquet")
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> several_runs.Runs:
    one = write(
        tmp_path / "1", {"plain": {"x": "1100", "y": "10"}, "maps": {"x": "1110", "y": "10"}}
    )
    two = write(
        tmp_path / "2", {"plain": {"x": "1000", "y": "11"}, "maps": {"x": "1110", "y": "00"}}
    )
    return several_runs.read({"seed 1": one, "seed 2": two})


def test_means_and_spreads_by_hand(runs: several_runs.Runs) -> None:
    table = several_runs.accuracies(runs, DRAWS).set_index("method")
    plain = table.loc["plain"]
    assert (plain["x"], plain["y"]) == (0.375, 0.75)
    assert plain["mean"] == 0.5625
    assert (plain["seed 1"], plain["seed 2"]) == (0.5, 0.625)
    assert plain["std_splits"] == pytest.approx(0.375 / np.sqrt(2))
    assert plain["std_runs"] == pytest.approx(0.125 / np.sqrt(2))
    assert 0 < plain["low"] < plain["mean"] < plain["high"] < 1


def test_differences_are_paired(runs: several_runs.Runs) -> None:
    (pair,) = several_runs.pairs(runs, [])
    assert pair == ("maps", "plain")
    table = several_runs.differences(runs, [pair, pair[::-1]], DRAWS)
    gain, loss = table.iloc[0], table.iloc[1]
    # x: (1/4 + 2/4) / 2, y: (0 - 1) / 2
    assert gain["difference"] == pytest.approx((0.375 - 0.5) / 2)
    assert (gain["seed 1"], gain["seed 2"]) == (0.125, -0.25)
    assert [loss["low"], loss["high"]] == pytest.approx([-gain["high"], -gain["low"]])
    same = several_runs.differences(runs, [("plain", "plain")], DRAWS).iloc[0]
    assert (same["difference"], same["low"], same["high"]) == (0, 0, 0)


def test_one_run_has_the_evaluations_own_numbers(tmp_path: Path) -> None:
    rng, results = np.random.default_rng(0), []
    for name in ("two_stream", "attention"):
        for split in ("1", "2"):
            probs = {stream: rng.dirichlet(np.ones(3), size=20) for stream in STREAMS}
            results.append(
                SplitResult(
                    fusion=name,
                    split_id=split,
                    clip_ids=np.array([f"c{(i + int(split) * 5):02}" for i in range(20)]),
                    subsets=np.array(["test"] * 16 + ["val"] * 4),
                    labels=rng.integers(0, 3, size=20),
                    probs=probs,
                    weight=FusionWeight(value=0.5, source="validation", num_clips=4),
                )
            )
    expected = scoring.flat_metrics(scoring.split_table(results, 3), results, DRAWS)
    joined = scoring.joined_predictions(results, ["a", "b", "c"])
    joined.to_parquet(tmp_path / "predictions.parquet")
    found = several_runs.read({"only": tmp_path})
    for _, row in several_runs.accuracies(found, DRAWS).iterrows():
        assert row["mean"] == pytest.approx(expected[f"{row['method']}/top1"], abs=1e-12)
        assert row["std_splits"] == pytest.approx(expected[f"{row['method']}/top1_std"], abs=1e-12)
        assert row["low"] == pytest.approx(expected[f"{row['method']}/top1_low"], abs=1e-12)
        assert row["high"] == pytest.approx(expected[f"{row['method']}/top1_high"], abs=1e-12)
        assert np.isnan(row["std_runs"])
    pairs = several_runs.pairs(found, [("attention", "two_stream")])
    assert pairs == [(f"attention/{s}", f"two_stream/{s}") for s in STREAMS]
    same = scoring.comparisons(results, DRAWS)
    for _, row in several_runs.differences(found, pairs, DRAWS).iterrows():
        other = same[(same["method"] == row["method"]) & (same["baseline"] == row["baseline"])]
        for number in ("difference", "low", "high"):
            assert row[number] == pytest.approx(other[number].iloc[0], abs=1e-12)


def test_what_does_not_fit_is_refused(tmp_path: Path, runs: several_runs.Runs) -> None:
    other = write(
        tmp_path / "3", {"plain": {"x": "1100", "y": "10"}, "maps": {"x": "111", "y": "10"}}
    )
    with pytest.raises(InputError, match="maps on x3 of split x is missing"):
        several_runs.read({"1": tmp_path / "1", "3": other})
    with pytest.raises(InputError, match="found no such file"):
        several_runs.read({"1": tmp_path / "nowhere"})
    with pytest.raises(InputError, match="which is taken"):
        several_runs.read({"x": tmp_path / "1"})
    with pytest.raises(InputError, match="expected one of plain, maps, got shuffled"):
        several_runs.pairs(runs, [("maps", "shuffled")])
    pd.DataFrame({"item_id": ["1"]}).to_parquet(tmp_path / "predictions.parquet")
    with pytest.raises(InputError, match="expected predictions of clips"):
        several_runs.read({"images": tmp_path})


def write_maps(folder: Path, scores: dict[tuple[str, str], float]) -> None:
    """Map scores of rows and splits: the pointing game, the others by rule; training beside it."""
    lines = []
    for (row, split), value in scores.items():
        for subset, share in (("train", 0.0), ("test", value)):
            lines.append((row, split, subset, 2, 9, share, share / 2, share / 4, 0.125))
    table = pd.DataFrame(lines, columns=localization.COLUMNS).assign(masks=localization.DRAWN)
    table.to_csv(folder / "localization.csv", index=False)


def test_map_scores_are_means_over_splits_and_runs(tmp_path: Path, runs: several_runs.Runs) -> None:
    folders = {"one": tmp_path / "1", "two": tmp_path / "2"}
    assert several_runs.localizations(folders) is None
    write_maps(
        folders["one"], {("b", "x"): 0.5, ("b", "y"): 0.25, ("a", "x"): 1.0, ("a", "y"): 1.0}
    )
    with pytest.raises(InputError, match=r"map scores of a run in .*2.localization.csv, found no"):
        several_runs.localizations(folders)
    write_maps(folders["two"], {("b", "x"): 0.125, ("b", "y"): 0.125})
    with pytest.raises(InputError, match=r"same rows in every run, got a in some of them; .*2"):
        several_runs.localizations(folders)
    write_maps(
        folders["two"], {("a", "x"): 0.5, ("a", "y"): 0.5, ("b", "x"): 0.125, ("b", "y"): 0.125}
    )
    table = several_runs.localizations(folders)
    assert table is not None
    assert list(table["row"]) == ["b", "a"]
    first = table.set_index("row").loc["b"]
    assert first.to_dict() == {
        "masks": "true",
        "pointing_game": 0.25,
        "energy_in_mask": 0.125,
        "iou": 0.0625,
        "chance": 0.125,
        "one": 0.375,
        "two": 0.125,
    }
    done = CliRunner().invoke(app, ["summarize", *(f"{n}={f}" for n, f in folders.items())])
    assert done.output.rstrip().endswith("| a | true | 75.0 | 37.5 | 18.8 | 12.5 | 100.0 | 50.0 |")


def test_figure_has_the_same_bytes_again(tmp_path: Path, runs: several_runs.Runs) -> None:
    folders = [f"{name}={tmp_path / name}" for name in ("1", "2")]
    for name in ("a.png", "b.png"):
        done = CliRunner().invoke(app, ["summarize", *folders, "--plot", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    one = CliRunner().invoke(app, ["summarize", folders[0], "--plot", str(tmp_path / "c.png")])
    assert one.exit_code == 0, one.output
    wide, other = (cv2.imread(str(tmp_path / name)) for name in ("a.png", "c.png"))
    assert wide.shape == other.shape
    assert (wide != other).any()


def test_command_prints_markdown(tmp_path: Path, runs: several_runs.Runs) -> None:
    arguments = ["summarize", f"one={tmp_path / '1'}", f"two={tmp_path / '2'}"]
    done = CliRunner().invoke(app, [*arguments, "--compare", "plain:maps", "--draws", "50"])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0] == "| method | x | y | mean | low | high | std_splits | std_runs | one | two |"
    assert lines[2].startswith("| plain | 37.5 | 75.0 | 56.2 |")
    assert any(line.startswith("| plain | maps | 6.2 |") for line in lines)
    again = CliRunner().invoke(app, [*arguments, "--compare", "plain:maps", "--draws", "50"])
    assert again.output == done.output
    assert CliRunner().invoke(app, ["summarize", str(tmp_path)]).exit_code == 2
    assert CliRunner().invoke(app, ["summarize", f"a={tmp_path}", f"a={tmp_path}"]).exit_code == 2
