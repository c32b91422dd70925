"""Pictures as tensors: exact where nothing is drawn, the same for any number of workers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import functional

from flowsight.datasets.images.labelled import load_labelled
from flowsight.systems.expression_recognition import data
from flowsight.systems.expression_recognition.params import Input
from flowsight.training.batches import EpochBatches

STILL = Input(resize_px=48, crop_px=48, scale=0, shift=0, rotation_deg=0, mirror=False, erase=0)
IMAGE = np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8)


def test_nothing_drawn_changes_nothing() -> None:
    kept = IMAGE.copy()
    np.testing.assert_array_equal(data.augmented(IMAGE, STILL, np.random.default_rng(1)), IMAGE)
    np.testing.assert_array_equal(IMAGE, kept)


def test_mirrors_and_shifts_are_exact() -> None:
    params = replace(STILL, mirror=True)
    seen = {data.augmented(IMAGE, params, np.random.default_rng(i)).tobytes() for i in range(12)}
    assert seen == {IMAGE.tobytes(), np.ascontiguousarray(IMAGE[:, ::-1]).tobytes()}
    cropped = replace(STILL, crop_px=40)
    views = {IMAGE[y : y + 40, x : x + 40].tobytes() for y in range(9) for x in range(9)}
    drawn = {data.augmented(IMAGE, cropped, np.random.default_rng(i)).tobytes() for i in range(60)}
    assert drawn <= views and len(drawn) > 30


def test_ten_crops_are_torchvisions() -> None:
    params = replace(STILL, crop_px=40)
    ours = data.crops_of(IMAGE, params, 10)
    theirs = functional.ten_crop(torch.from_numpy(IMAGE).permute(2, 0, 1), [40, 40])
    expected = {crop.permute(1, 2, 0).contiguous().numpy().tobytes() for crop in theirs}
    assert {np.ascontiguousarray(crop).tobytes() for crop in ours} == expected
    np.testing.assert_array_equal(ours[0], IMAGE[4:44, 4:44])
    np.testing.assert_array_equal(data.crops_of(IMAGE, params, 1)[0], ours[0])


def test_erasing_leaves_the_rest() -> None:
    params = replace(STILL, erase=1.0)
    for seed in range(20):
        seen = data.augmented(IMAGE, params, np.random.default_rng(seed))
        changed = (seen != IMAGE).any(axis=2)
        rows, columns = np.nonzero(changed)
        area = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert 0.01 < area / 48**2 < 0.24
        inside = changed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert inside.mean() > 0.9


def test_channels() -> None:
    grey = np.repeat(IMAGE[..., :1], 3, axis=2)[None]
    one = data.to_tensor(grey, STILL, 1)
    assert one.shape == (1, 1, 48, 48) and one.dtype == torch.float32
    np.testing.assert_allclose(one[0, 0], (grey[0, ..., 0] / 255 - 0.5) / 0.25, atol=1e-6)
    three = data.to_tensor(grey, STILL, 3)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = functional.normalize(torch.from_numpy(grey[0] / 255.0).permute(2, 0, 1), mean, std)
    np.testing.assert_allclose(three[0], expected, atol=1e-5)
    colours = data.to_tensor(IMAGE[None], replace(STILL, colour=True), 3)
    expected = functional.normalize(torch.from_numpy(IMAGE / 255.0).permute(2, 0, 1), mean, std)
    np.testing.assert_allclose(colours[0], expected, atol=1e-5)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_and_restarts_change_nothing(faces: Path, workers: int) -> None:
    items, _ = load_labelled(faces / "raw", faces / "items", "1")
    params = Input(resize_px=48, crop_px=40)

    def batches(count: int, epoch: int) -> list[list[torch.Tensor]]:
        dataset = data.FaceDataset(items, params, channels=1, train=True, seed=5)
        order = EpochBatches(len(items), batch_size=16, seed=5, epoch=epoch)
        loader = DataLoader(
            dataset, batch_sampler=order, collate_fn=data.as_read, num_workers=count
        )
        return [list(batch) for batch in loader]

    here, there = batches(0, 1), batches(workers, 1)
    assert all(
        torch.equal(a, b)
        for x, y in zip(here, there, strict=True)
        for a, b in zip(x, y, strict=True)
    )
    assert not torch.equal(here[0][0], batches(0, 2)[0][0])
    for _, labels, index in here:
        assert labels.tolist() == [items[i].label for i in index.tolist()]
