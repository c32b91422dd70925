"""Training over scenes: it learns, it repeats to the byte, and a kill changes nothing."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from flowsight.datasets.scenes.videos import Video, open_video
from flowsight.errors import InputError
from flowsight.systems.background import networks, training
from flowsight.systems.background.network import probabilities
from flowsight.systems.background.params import (
    Block,
    EvaluateParams,
    SceneInputParams,
    SceneNetworkParams,
    SceneRowParams,
    SceneTestParams,
    SceneTrainParams,
)
from flowsight.systems.background.sequences import network_input
from flowsight.training import schedule

ROW = SceneRowParams(
    network=SceneNetworkParams(lstm_units=(6,), gru_units=(3,), filters=(4,), dropout=0.1),
    input=SceneInputParams(
        colour=False,
        background_frames=6,
        pixel_stride=1,
        crop=(16, 16),
        flip=False,
        recolour=False,
        light=0.0,
    ),
    train=SceneTrainParams(
        epochs=3, batches=2, batch_size=2, warmup_frames=2, chunk_frames=3, chunks=2,
        moving_share=0.5, lr=0.02, schedule="cosine",
    ),
    test=SceneTestParams(threshold=0.5),
)  # fmt: skip


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Video:
    """A light block of 6 px that bounces before a dark wall; 40 frames of 20 x 24 px."""
    root = tmp_path_factory.mktemp("scene")
    folder, rng = root / "made/wall", np.random.default_rng(0)
    for name in ("input", "groundtruth"):
        (folder / name).mkdir(parents=True)
    wall = rng.integers(40, 90, (20, 24))
    for number in range(1, 41):
        truth = np.zeros((20, 24), np.uint8)
        column = abs((3 * number) % 36 - 18)
        truth[4 + number % 9 :, column : column + 6][:6] = 255
        frame = np.where(truth == 255, 170, wall) + rng.normal(0, 2, wall.shape)
        cv2.imwrite(str(folder / f"input/in{number:06d}.jpg"), frame.astype(np.uint8))
        cv2.imwrite(str(folder / f"groundtruth/gt{number:06d}.png"), truth)
    cv2.imwrite(str(folder / "ROI.bmp"), np.full((20, 24), 255, np.uint8))
    (folder / "temporalROI.txt").write_text("9 40")
    return open_video(root, "made/wall")


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWSIGHT_SCRATCH", str(tmp_path / "scratch"))


def fit(
    video: Video, row: SceneRowParams = ROW, key: str = "a/1", stop_after: int | None = None
) -> tuple[dict[str, torch.Tensor], list[training.Epoch]]:
    def log(metrics: Mapping[str, float], epoch: int) -> None:
        assert metrics["epoch"] == epoch

    if stop_after is not None:
        saved = training.resume.save

        def save_and_die(state: dict, scratch_key: str) -> None:
            saved(state, scratch_key)
            if len(state["history"]) == stop_after:
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(training.resume, "save", save_and_die)
            fit(video, row, key)
        return {}, []
    return training.fit(
        row=row, row_name="toy", videos=[video], seed=1, threads=1, scratch_key=key, log=log
    )


def test_a_killed_training_ends_in_the_same_bytes(video: Video) -> None:
    whole, history = fit(video, key="a/1")
    fit(video, key="a/2", stop_after=2)
    resumed, again = fit(video, key="a/2")
    assert again == history
    assert [epoch.epoch for epoch in history] == [1, 2, 3]
    assert list(whole) == list(resumed)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    other, _ = fit(video, replace(ROW, train=replace(ROW.train, epochs=2)), key="a/3")
    assert not all(torch.equal(whole[name], other[name]) for name in whole)


def test_it_learns_to_tell_what_moves_and_leaves_a_still_picture_alone(video: Video) -> None:
    row = replace(ROW, train=replace(ROW.train, epochs=6, batches=6))
    state, history = fit(video, row)
    assert history[-1].train_loss < history[0].train_loss / 2
    assert history[-1].train_f > 0.8
    assert [epoch.lr for epoch in history][::5] == pytest.approx([0.02, 0.02 * 0.0669873])
    network = networks.build(row)
    network.load_state_dict(state)
    still = np.repeat(cv2.imread(str(video.frames[0]), cv2.IMREAD_GRAYSCALE)[None], 12, axis=0)
    still[still > 130] = 64  # the block taken out
    still = still[..., None]
    inputs = torch.from_numpy(network_input(still, still[0]))
    probs = list(probabilities(network.eval(), inputs.unbind(dim=1)))
    assert float(probs[-1].max()) < 0.5


def test_history_is_written(tmp_path: Path) -> None:
    line = training.Epoch(epoch=1, lr=0.01, train_loss=0.25, train_f=0.5)
    schedule.write_history([line], tmp_path / "h.csv")
    with (tmp_path / "h.csv").open() as file:
        assert list(csv.DictReader(file)) == [
            {"epoch": "1", "lr": "0.01", "train_loss": "0.250000", "train_f": "0.500000"}
        ]


def test_a_diverged_training_is_named(video: Video) -> None:
    row = replace(ROW, train=replace(ROW.train, lr=1e30))
    with pytest.raises(InputError, match=r"finite training loss, got nan .*toy\.train\.lr"):
        fit(video, row)


def test_an_unknown_row_is_named() -> None:
    block = Block(peers=(), rows={"toy": ROW}, evaluate=EvaluateParams(num_pictures=1))
    assert block.row("toy") is ROW
    with pytest.raises(InputError, match=r"no row 'nothing' in .*background\.rows; rows: toy"):
        block.row("nothing")
