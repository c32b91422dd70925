"""Background subtraction: from frames to results/background and its part of the page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from flowsight.contract import Folders
from flowsight.datasets.scenes import videos as dataset
from flowsight.datasets.scenes.videos import Video
from flowsight.errors import InputError
from flowsight.metrics.change_detection import Mask
from flowsight.params import config
from flowsight.params.config import Params
from flowsight.samples import scenes
from flowsight.systems.background import counts, evaluate, figures, paper, peers
from flowsight.systems.background import report as section

from .conftest import changed, write_page

ROOT = Path(__file__).resolve().parents[2]
STREET, ROOM = "baseline/street", "shadow/room"


def truth_with_noise(video: Video, flips: float) -> Iterator[Mask]:
    rng = np.random.default_rng(len(video.video_id))
    for index in range(len(video)):
        noise = rng.random(video.shape) < flips
        yield (dataset.read_truth(video, index) == 255) ^ noise


@pytest.fixture(scope="module")
def params() -> Params:
    """The committed parameters, each row trained on the street only and on the room only."""
    found = config.load(ROOT / "params.yaml")
    splits = {"street": (STREET,), "room": (ROOM,)}
    found = changed(found, "background", peers=("mog2", "cnt"), evaluate={"num_pictures": 2})
    return replace(found, scenes=replace(found.scenes, videos=(STREET, ROOM), splits=splits))


@pytest.fixture(scope="module")
def world(params: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered scenes; networks that find the truth, with noise where they never saw the scene."""
    root, block = tmp_path_factory.mktemp("world"), params.system("background")
    scenes.render(root / "raw", seed=1, num_frames=24, shape=(60, 80))
    videos = dataset.open_videos(root / "raw", params.scenes.videos)
    for row in block.rows:
        for split_id, seen in params.scenes.splits.items():
            counts.write(
                videos,
                lambda v, seen=seen: truth_with_noise(v, 0.001 if v.video_id in seen else 0.05),
                seen,
                root / f"predictions/{row}-{split_id}",
            )
    peers.peers(params, Folders(scenes=root / "raw"), root / "peers")
    return root


def folders_of(world: Path) -> Folders:
    """What the evaluation reads."""
    return Folders(scenes=world / "raw", predictions=world / "predictions", peers=world / "peers")


@pytest.fixture(scope="module")
def results(params: Params, world: Path) -> Path:
    out = world / "results/background"
    evaluate.evaluate(params, folders_of(world), out)
    return out


def counted_again(world: Path, folder: Path, video_id: str, numbers: range) -> tuple[int, int, int]:
    """tp, fp, fn from the stored masks and the truth files, with numpy only."""
    tp = fp = fn = 0
    region = cv2.imread(str(world / "raw" / video_id / "ROI.bmp"), cv2.IMREAD_GRAYSCALE) > 0
    for number in numbers:
        truth = cv2.imread(str(world / f"raw/{video_id}/groundtruth/gt{number:06d}.png"), 0)
        mask = counts.read_mask(folder, video_id, number - 1)
        scored = np.isin(truth, (0, 50, 255)) & region
        tp += int((mask & (truth == 255) & scored).sum())
        fp += int((mask & (truth != 255) & scored).sum())
        fn += int((~mask & (truth == 255) & scored).sum())
    return tp, fp, fn


@pytest.mark.parametrize("video_id", [STREET, ROOM])
@pytest.mark.parametrize(
    ("part", "numbers"), [("second_half", range(16, 25)), ("all", range(7, 25))]
)
def test_numbers_are_those_of_the_masks(
    world: Path, results: Path, video_id: str, part: str, numbers: range
) -> None:
    table = pd.read_csv(results / "per_video.csv", keep_default_na=False)
    places = {"recurrent": world / "predictions/recurrent-street", "mog2": world / "peers/mog2"}
    for method, folder in places.items():
        split_id = "street" if method == "recurrent" else ""
        own = table[(table.method == method) & (table.split_id == split_id)]
        (row,) = own[(own.video_id == video_id) & (own.part == part)].to_dict("records")
        tp, fp, fn = counted_again(world, folder, video_id, numbers)
        assert (row["tp"], row["fp"], row["fn"]) == (tp, fp, fn)
        assert float(row["f_measure"]) == pytest.approx(2 * tp / (2 * tp + fp + fn), abs=1e-6)
        assert row["seen"] == (method == "recurrent" and video_id == STREET)


def test_flat_metrics_tell_seen_from_unseen(results: Path) -> None:
    metrics = json.loads((results / "metrics.json").read_text())
    for row in ("recurrent", "recurrent_median"):
        for video in ("street", "room"):
            assert metrics[f"{row}/{video}/f_measure"] > 0.95
            assert metrics[f"{row}/{video}/unseen_f_measure"] < 0.9
        both = [metrics[f"{row}/{video}/f_measure"] for video in ("street", "room")]
        assert metrics[f"{row}/f_measure"] == pytest.approx(np.mean(both), abs=2e-6)
    assert "mog2/street/f_measure" in metrics and "mog2/street/unseen_f_measure" not in metrics


def test_counts_and_masks_of_every_scored_frame(world: Path) -> None:
    table = pd.read_parquet(world / "predictions/recurrent-street/counts.parquet")
    assert list(table.columns) == ["item_id", "subset", "tp", "fp", "fn", "tn"]
    assert table.subset.value_counts().to_dict() == {"unseen": 18, "train": 9, "test": 9}
    assert table.item_id[0] == "baseline/street/000007"
    masks = counts.read_mask(world / "predictions/recurrent-street", STREET, 23)
    assert masks.shape == (60, 80) and masks.dtype == bool
    with pytest.raises(InputError, match=r"street\.zip"):
        counts.read_mask(world / "predictions/recurrent-street", STREET, 3)  # not scored


def test_the_same_input_gives_the_same_bytes(params: Params, world: Path, results: Path) -> None:
    again = world / "again"
    evaluate.evaluate(params, folders_of(world), again)
    peers.peers(params, Folders(scenes=world / "raw"), world / "peers2")
    for one, other in ((results, again), (world / "peers", world / "peers2")):
        names = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
        assert names == sorted(p.relative_to(other) for p in other.rglob("*") if p.is_file())
        for name in names:
            assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_printed_numbers_and_why_none_compares(params: Params, results: Path) -> None:
    table = pd.read_csv(results / "paper_table.csv", keep_default_na=False)
    assert list(table.columns[-3:]) == ["ours", "comparable", "why"]
    assert len(table) == 36 and not table.comparable.any()
    proposed = table[table.method == "proposed"]
    assert proposed.why.str.contains("of sample_scenes, not CDnet 2012").all()
    metrics = json.loads((results / "metrics.json").read_text())
    f_measure = proposed[proposed.metric == "f_measure"].ours.astype(float)
    assert f_measure.tolist() == pytest.approx([metrics["recurrent/f_measure"]] * 4, abs=1e-4)
    assert (table[table.method == "FTSG"].ours == "").all()


def test_reasons_on_the_papers_own_videos(params: Params) -> None:
    videos = ("baseline/highway",)
    scenes_there = replace(
        params.scenes, name="cdnet2012", videos=videos, splits={"highway": videos}
    )
    own = replace(params, scenes=scenes_there)
    rows = [
        ("recurrent", "highway", "baseline/highway", True, part, f, 0.9, 0.8)
        for part, f in (("second_half", 0.91234), ("all", 0.95))
    ]
    names = ["method", "split_id", "video_id", "seen", "part", "f_measure", "recall", "precision"]
    table = paper.paper_table(pd.DataFrame(rows, columns=names), own)
    row = table[(table.method == "proposed") & (table["item"] == "highway")].set_index("metric")
    assert row.ours["f_measure"] == 0.9123
    assert "does not say which frames it tests" in row.why["f_measure"]
    assert "(all scored frames: 0.9500)" in row.why["f_measure"]
    assert "other widths than the paper's" in row.why["f_measure"]
    missing = table[(table.method == "proposed") & (table["item"] == "office")]
    assert (
        missing.ours.isna().all() and missing.why.str.contains("no network of this run saw").all()
    )


def test_pictures_show_what_was_judged(params: Params, world: Path, results: Path) -> None:
    index = pd.read_csv(results / "pictures/index.csv")
    assert len(index) == 4
    assert index.panels[0] == (
        "input | truth | recurrent | recurrent_median | recurrent, scene unseen | "
        "recurrent_median, scene unseen | mog2"
    )
    image = cv2.imread(str(results / "pictures" / index.picture[0]))
    assert image.shape == (60, 7 * 80 + 6 * 4, 3)
    truth = np.array([[255, 255, 0, 50, 85, 0]], np.uint8)
    mask = np.array([[1, 0, 1, 1, 1, 0]], bool)
    colours = figures.judged(mask, truth)[0].tolist()
    white, blue, red, grey, black = colours[0], colours[1], colours[2], colours[4], colours[5]
    assert min(white) > 200 and blue[0] == max(blue) and red[2] == max(red)
    assert colours[3] == red and len(set(grey)) == 1 and black == [0, 0, 0]


def test_its_part_of_the_page(params: Params, world: Path, results: Path) -> None:
    history = world / "history/sample_scenes"
    history.mkdir(parents=True)
    lines = "epoch,lr,train_loss,train_f\n1,0.01,0.5,0.1\n2,0.01,0.2,0.8\n"
    (history / "recurrent-street.csv").write_text(lines)
    found = section.content(params, Folders(results=results, history=history))
    street = found["videos"][0]
    kinds = [line["kind"] for line in street["lines"]]
    assert kinds == ["seen"] * 2 + ["unseen"] * 2 + ["peer"] * 2
    assert street["best"]["seen"] == max(line["f_measure"] for line in street["lines"][:2])
    assert [card["row"] for card in found["curves"]] == ["recurrent"]
    assert found["curves"][0]["charts"][0].count("<polyline") == 1
    page = write_page(
        ["background"], params=params, results=results.parent, history=history,
        out=world / "report",
    )  # fmt: skip
    assert "trained on its first half" in page and "scene unseen, trained on room" in page
    assert page.count("<img ") == 4
    assert "0.9541" in page  # printed by the paper


def test_predictions_that_do_not_fit_are_named(params: Params, world: Path, tmp_path: Path) -> None:
    videos = dataset.open_videos(world / "raw", (STREET, ROOM))
    with pytest.raises(InputError, match=r"expected predictions in .*counts\.parquet"):
        counts.read(tmp_path, videos)
    table = pd.read_parquet(world / "predictions/recurrent-street/counts.parquet")
    table.iloc[1:].to_parquet(tmp_path / "counts.parquet", index=False)
    with pytest.raises(InputError, match=r"each of the 36 scored frames once .* got 35 others"):
        counts.read(tmp_path, videos)
    table.drop(columns="tn").to_parquet(tmp_path / "counts.parquet", index=False)
    with pytest.raises(InputError, match=r"expected the columns item_id, .* got item_id"):
        counts.read(tmp_path, videos)


@pytest.mark.parametrize("name", ["mog2", "knn", "cnt", "gsoc", "lsbp"])
def test_every_peer_finds_a_block_that_moves_before_a_still_wall(name: str) -> None:
    rng = np.random.default_rng(0)
    wall = rng.integers(40, 90, (40, 60, 3))

    def frames(count: int) -> Iterator[np.ndarray]:
        for index in range(count):
            frame = wall + rng.normal(0, 1, wall.shape)
            if index > 30:
                frame[10:30, index : index + 15] = 220
            yield frame.astype(np.uint8)

    masks = list(peers.moving(name, frames(36)))
    assert len(masks) == 36 and masks[0].shape == (40, 60)
    assert masks[-1][14:26, 40:46].mean() > 0.5
    assert masks[-1][:, :20].mean() < 0.2
