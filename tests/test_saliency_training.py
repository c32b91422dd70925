"""Training over images: it learns, repeats itself, goes on after a kill, and after slimming."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from flowsight.datasets.images import pairs as image_pairs
from flowsight.errors import InputError
from flowsight.nn import checkpoint
from flowsight.params.training import TrainParams
from flowsight.systems.saliency import batches, networks, training
from flowsight.systems.saliency.params import (
    Block,
    EvaluateParams,
    ImageInputParams,
    ImageNetworkParams,
    ImageRowParams,
    ImageStartParams,
    SlimParams,
)
from flowsight.training import resume
from flowsight.training.schedule import Epoch

BASE = ImageRowParams(
    start=ImageStartParams(),
    network=ImageNetworkParams(backbone="vgg16_bn", width=2, border="same", dropout=0.3),
    input=ImageInputParams(long_px=32, scales=(1.0, 0.75), flip=True),
    train=TrainParams(
        loss="mean",
        epochs=4,
        samples_per_epoch=1,
        batch_size=4,
        accumulate=1,
        optimizer="adamw",
        lr=0.01,
        momentum=0.9,
        weight_decay=0.01,
        schedule="poly",
        milestones=(),
        gamma=0.9,
        patience=None,
        precision="32-true",
        devices=1,
    ),
)
BLOCK = Block(
    plans={"f": {"fc6": 0.5}, "cd": {"conv3_3": 0.5, "conv4_3": 0.25}},
    rows={
        "base": BASE,
        **{
            f"{plan}_{choice}": dataclasses.replace(
                BASE,
                start=ImageStartParams(
                    init="base", slim=SlimParams(plan=plan, choice=choice, num_images=5)
                ),
                train=dataclasses.replace(BASE.train, epochs=2),
            )
            for plan, choice in (("f", "first"), ("cd", "taylor"), ("cd", "random"))
        },
    },
    evaluate=EvaluateParams(
        bootstrap_samples=0, confidence=0.95, num_pictures=1, experiments={"base": "base"}
    ),
)
Result = tuple[dict[str, Tensor], list[Epoch]]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 images of several sizes with a bright disc, and what `pairs` makes of them."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(16):
        height, width = ((40, 56), (56, 40), (30, 31))[i % 3]
        rows, columns = np.mgrid[:height, :width]
        centre = rng.uniform(0.35, 0.65, 2) * (height, width)
        mask = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < 90
        image = rng.integers(20, 90, (height, width, 3)) + 140 * mask[..., None]
        (root / "raw/Imgs").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / f"raw/Imgs/{i}.jpg"), image.astype(np.uint8))
        cv2.imwrite(str(root / f"raw/Imgs/{i}.png"), (255 * mask).astype(np.uint8))
    image_pairs.write_pairs(
        root / "raw",
        root / "pairs",
        split_ids=("1",),
        test_share=0.25,
        val_share=0.2,
        seed=1,
        max_quarantined=0.0,
    )
    return root


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLOWSIGHT_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.delenv("FLOWSIGHT_MICRO_BATCH", raising=False)
    monkeypatch.delenv("FLOWSIGHT_WORKERS", raising=False)
    return tmp_path / "scratch"


def fit(toy: Path, row: str = "base", block: Block = BLOCK, **options: Any) -> Result:
    options.setdefault("log", lambda metrics, step: None)
    result = training.fit(
        row_name=row,
        block=block,
        raw=toy / "raw",
        pairs=toy / "pairs",
        split_id="1",
        seed=1,
        threads=1,
        scratch_key="train/key",
        **options,
    )
    resume.discard("train/key")
    return result


def changed(row: str = "base", **train: Any) -> Block:
    own = BLOCK.rows[row]
    own = dataclasses.replace(own, train=dataclasses.replace(own.train, **train))
    return dataclasses.replace(BLOCK, rows=BLOCK.rows | {row: own})


@pytest.fixture(scope="module")
def base(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The base network, trained and written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWSIGHT_SCRATCH", str(tmp_path_factory.mktemp("scratch")))
        result = fit(toy)
    folder = tmp_path_factory.mktemp("base")
    checkpoint.save(result[0], folder / "model.pt")
    return folder, result


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def saved(state: dict[str, Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def test_it_learns_and_repeats_itself(toy: Path, base: tuple[Path, Result]) -> None:
    _, (state, history) = base
    assert len(history) == 4
    assert history[-1].train_loss < 0.8 * history[0].train_loss
    assert [round(e.lr, 6) for e in history] == [
        round(0.01 * (1 - e / 4) ** 0.9, 6) for e in range(4)
    ]
    assert all(e.val_loss is not None for e in history)
    again, repeated = fit(toy)
    assert same(state, again) and history == repeated


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("row", ["base", pytest.param("cd_taylor", marks=pytest.mark.slow)])
def test_a_killed_training_ends_in_the_same_bytes(
    toy: Path, base: tuple[Path, Result], row: str
) -> None:
    folder, result = base
    init = None if row == "base" else folder
    whole = result if row == "base" else fit(toy, row, init=init)

    def kill(metrics: object, epoch: int) -> None:
        if epoch == 2:  # its state is not written yet: epoch 2 is done anew
            raise KilledError

    with pytest.raises(KilledError):
        fit(toy, row, init=init, log=kill)
    seen: list[int] = []
    state, history = fit(toy, row, init=init, log=lambda metrics, epoch: seen.append(epoch))
    assert seen[0] == 2 and history == whole[1]
    assert saved(state) == saved(whole[0])


@pytest.mark.parametrize("row", ["f_first", "cd_taylor", "cd_random"])
def test_training_goes_on_from_the_slim_network(
    toy: Path, base: tuple[Path, Result], row: str, tmp_path: Path
) -> None:
    folder, (full, _) = base
    still = changed(row, lr=1e-30, weight_decay=0.0)  # one that stays where slimming put it
    state, _ = fit(toy, row, still, init=folder)
    layer, kept = ("fc6", 64) if row == "f_first" else ("conv3_3", 4)
    assert len(state[f"{layer}.weight"]) == kept
    kernels = [
        next(k for k, kernel in enumerate(full[f"{layer}.weight"]) if torch.equal(kernel[..., 0, 0],
             want[..., 0, 0]) or torch.equal(kernel[: len(want)], want))
        for want in state[f"{layer}.weight"]
    ]  # fmt: skip
    assert kernels == sorted(set(kernels))
    assert (kernels == list(range(kept))) == (row == "f_first")
    checkpoint.save(state, tmp_path / "model.pt")
    plan = BLOCK.plan_of(BLOCK.rows[row])
    network = networks.restored(BLOCK.rows[row], plan, tmp_path)
    assert network(torch.zeros(1, 3, 20, 30)).shape == (1, 2, 20, 30)
    with pytest.raises(InputError, match="kernels of fc7 by the plan"):
        networks.restored(BLOCK.rows[row], {"fc7": 0.5}, tmp_path)


def test_the_papers_settings_run(toy: Path) -> None:
    """Summed loss, 1e-14, momentum 0.99: finite, and nearly still where all is random."""
    block = changed(optimizer="sgd", lr=1e-14, momentum=0.99, weight_decay=5e-4, batch_size=1,
                    schedule="constant", epochs=1)  # fmt: skip
    row = block.rows["base"]
    row = dataclasses.replace(row, train=dataclasses.replace(row.train, loss="sum"))
    state, (epoch,) = fit(toy, block=dataclasses.replace(block, rows={"base": row}))
    assert epoch.train_loss == pytest.approx(np.log(2), abs=1e-4)
    assert 0 < state["score_pool3.weight"].abs().max() < 1e-6


# batches


def test_a_batch_pads_and_says_where(toy: Path) -> None:
    pairs = image_pairs.load_pairs(toy / "raw", toy / "pairs", "1")
    dataset = batches.PairDataset(pairs, BASE.input, train=False, seed=1)
    x, target, index = dataset.__getitems__([(0, 0), (0, 1), (0, 2)])
    assert x.shape == (3, 3, 32, 32) and target.shape == (3, 32, 32)
    assert index.tolist() == [0, 1, 2]
    for i in range(3):
        image, mask = dataset.read((0, i))
        rows, columns = mask.shape
        assert max(rows, columns) == (31 if min(rows, columns) == 30 else 32)
        assert np.array_equal(target[i, :rows, :columns].numpy(), mask)
        inside = target[i] != batches.VOID
        assert int(inside.sum()) == mask.size
        assert not x[i][:, ~inside].any()
        wanted = (image / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
        got = x[i, :, :rows, :columns].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_augmentation_is_a_function_of_seed_epoch_and_item(toy: Path) -> None:
    pairs = image_pairs.load_pairs(toy / "raw", toy / "pairs", "1")
    dataset = batches.PairDataset(pairs, BASE.input, train=True, seed=1)
    seen = set()
    for epoch in range(8):
        image, mask = dataset.read((epoch, 0))
        again, _ = dataset.read((epoch, 0))
        assert np.array_equal(image, again)
        # the bright disc lies under its mask, mirrored or not
        assert image[mask == 1].mean() > image[mask == 0].mean() + 80
        seen.add((image.shape, int(image[0, 0, 0])))
    assert len({shape for shape, _ in seen}) == 2 and len(seen) > 2


def test_masks_are_scaled_to_the_nearest_pixel() -> None:
    mask = np.zeros((4, 8), np.uint8)
    mask[:, 4:] = 1
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 4:] = 200
    small, target = batches.scale(image, mask, 0.5)
    assert target.tolist() == [[0, 0, 1, 1]] * 2
    assert small[..., 0].tolist() == [[0, 0, 200, 200]] * 2
    assert batches.scale(image, mask, 0.01)[1].shape == (1, 1)
    assert batches.shrink_factor((300, 400), 200) == 0.5
    assert batches.shrink_factor((30, 40), 200) == batches.shrink_factor((9, 9), None)
