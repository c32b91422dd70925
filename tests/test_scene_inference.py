"""Networks over whole videos: what is written, and that nothing is kept but the state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from flowsight.contract import Job
from flowsight.datasets.scenes import videos as background
from flowsight.errors import InputError
from flowsight.nn import checkpoint
from flowsight.params import config
from flowsight.samples import scenes
from flowsight.systems.background import counts, networks, predict
from flowsight.systems.background.params import (
    SceneInputParams,
    SceneNetworkParams,
    SceneRowParams,
    SceneTestParams,
    SceneTrainParams,
)
from flowsight.systems.background.sequences import network_input
from tests.conftest import job_of

ROOT = Path(__file__).resolve().parents[1]
ROW = SceneRowParams(
    network=SceneNetworkParams(lstm_units=(3,), gru_units=(2,), filters=(3,), dropout=0.5),
    input=SceneInputParams(
        colour=True,
        background_frames=3,
        pixel_stride=2,
        crop=(8, 8),
        flip=False,
        recolour=False,
        light=0.0,
    ),
    train=SceneTrainParams(
        epochs=1, batches=1, batch_size=1, warmup_frames=0, chunk_frames=1, chunks=1,
        moving_share=0.0, lr=0.01, schedule="constant",
    ),
    test=SceneTestParams(threshold=0.12),
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes, and a checkpoint of chance weights."""
    root = tmp_path_factory.mktemp("inference")
    scenes.render(root / "raw", seed=1, num_frames=12, shape=(40, 56))
    torch.manual_seed(0)
    checkpoint.save(networks.build(ROW).state_dict(), root / "model/model.pt")
    return root


def test_a_camera_gives_what_the_whole_video_gives(trained: Path) -> None:
    network = predict.load(ROW, trained / "model")
    rng = np.random.default_rng(0)
    film = rng.integers(0, 256, (7, 10, 12, 3)).astype(np.uint8)
    asked: list[int] = []

    def camera() -> Iterator[np.ndarray]:
        for index, frame in enumerate(film):
            asked.append(index)
            yield frame

    stream = predict.moving_probabilities(network, camera(), ROW.input)
    first = next(stream)
    assert asked == [0, 1, 2]  # what the background is made of, and no more
    place = np.median(film[:3], axis=0)
    with torch.inference_mode():
        logits, _ = network(torch.from_numpy(network_input(film, place))[None])
    expected = logits[0].sigmoid().numpy()
    np.testing.assert_allclose([first, *stream], expected, atol=1e-5)
    assert asked == list(range(7))


def job(trained: Path, checkpoint_dir: Path, out: Path) -> Job:
    """Over both scenes, of which the room's first half was trained on."""
    block = replace(config.load(ROOT / "params.yaml").system("background"), rows={"toy": ROW})
    folders = {"scenes": trained / "raw", "checkpoint": checkpoint_dir}
    found = job_of("background", block, "toy", out, split="room", **folders)
    scenes = replace(
        found.params.scenes,
        videos=("baseline/street", "shadow/room"),
        splits={"room": ("shadow/room",)},
    )
    return replace(found, params=replace(found.params, scenes=scenes))


def test_all_videos_are_predicted_and_repeat(trained: Path, tmp_path: Path) -> None:
    videos = background.open_videos(trained / "raw", ["baseline/street", "shadow/room"])
    for out in ("one", "two"):
        predict.predict(job(trained, trained / "model", tmp_path / out))
    table = counts.read(tmp_path / "one", videos)
    assert table.groupby("video_id")["subset"].unique().map(sorted).to_dict() == {
        "baseline/street": ["unseen"],
        "shadow/room": ["test", "train"],
    }
    for name in ("counts.parquet", "baseline/street.zip", "shadow/room.zip"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    network = predict.load(ROW, trained / "model")
    film = np.stack(list(background.frames(videos[0], colour=True)))
    with torch.inference_mode():
        inputs = network_input(film, background.median_background(film[:3]))
        found = (
            network(torch.from_numpy(inputs)[None])[0][0, 8].sigmoid().numpy() >= ROW.test.threshold
        )
    assert 0 < found.mean() < 1
    stored = counts.read_mask(tmp_path / "one", "baseline/street", 8)
    assert (stored != found).mean() < 0.001  # sums in another order
    row = pd.read_parquet(tmp_path / "one/counts.parquet").set_index("item_id")
    assert row.loc["baseline/street/000009", ["tp", "fp", "fn", "tn"]].sum() == (
        np.isin(background.read_truth(videos[0], 8), (0, 50, 255)).sum()
    )


def test_mistakes_are_named(trained: Path, tmp_path: Path) -> None:
    network = predict.load(ROW, trained / "model")
    frames = [np.zeros((8, 9, 3), np.uint8)] * 4 + [np.zeros((8, 8, 3), np.uint8)]
    with pytest.raises(InputError, match=r"of shape \(8, 9, 3\), got \(8, 8, 3\)"):
        list(predict.moving_probabilities(network, frames, ROW.input))
    with pytest.raises(InputError, match="expected a checkpoint in"):
        predict.load(ROW, tmp_path)
    other = replace(ROW, input=replace(ROW.input, colour=False))
    with pytest.raises(InputError, match="expected the weights of this network"):
        predict.load(other, trained / "model")
    state = {name: torch.full_like(t, torch.nan) for name, t in network.state_dict().items()}
    checkpoint.save(state, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"finite probabilities for baseline/street"):
        predict.predict(job(trained, tmp_path, tmp_path / "out"))
    assert not (tmp_path / "out/counts.parquet").exists()
