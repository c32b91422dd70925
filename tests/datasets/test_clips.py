"""Clips as network input, on two classes of sixteen tiny clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from flowsight.batches import sampling, transforms
from flowsight.batches.clips import (
    Clip,
    ClipDataset,
    count_positions,
    full_frames,
    load_clips,
    loader,
    network_input,
    read_images,
    timeline,
)
from flowsight.batches.params import InputParams
from flowsight.errors import InputError
from flowsight.training.batches import EpochBatches
from flowsight.video import pack

RGB = InputParams(
    modality="rgb",
    stack_length=1,
    num_segments=2,
    resize_px=30,
    crop_px=24,
    scales=(1.0, 0.875),
    flip=True,
    map_value=0.1,
)
FLOW = replace(RGB, modality="flow", stack_length=3)


def test_load_clips(toy: Any) -> None:
    clips, names = load_clips(toy.manifest, toy.split, toy.frames)
    assert names == ["Up", "Down"], "in the order of classes.csv, not of the alphabet"
    assert [clip.clip_id for clip in clips] == sorted(toy.clip_ids)
    up = next(clip for clip in clips if clip.clip_id == "Up/clip_00")
    assert up == Clip("Up/clip_00", 0, "train", 7, toy.frames / "0/Up/clip_00.zip", None)
    with_maps, _ = load_clips(toy.manifest, toy.split, toy.frames, toy.maps)
    assert with_maps[0].maps == toy.maps / f"{with_maps[0].clip_id}.zip"


def test_faults_name_the_place(toy: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        load_clips(toy.manifest, tmp_path / "nowhere.csv", toy.frames)
    split = tmp_path / "1.csv"
    split.write_text("clip_id,subset\nUp/other,train\n")
    with pytest.raises(InputError, match="Up/other"):
        load_clips(toy.manifest, split, toy.frames)
    split.write_text("clip_id\nUp/clip_00\n")
    with pytest.raises(InputError, match="subset"):
        load_clips(toy.manifest, split, toy.frames)
    with pytest.raises(InputError, match="16 missing"):
        load_clips(toy.manifest, toy.split, tmp_path)


@pytest.fixture
def clips(toy: Any) -> list[Clip]:
    return load_clips(toy.manifest, toy.split, toy.flow, toy.maps)[0]


def test_shapes(toy: Any, clips: list[Clip]) -> None:
    x, label, index = ClipDataset(clips, FLOW, train=True, seed=1)[0, 3]
    assert (x.shape, x.dtype, label, index) == ((2, 7, 24, 24), torch.float32, 1, 3)
    plain = load_clips(toy.manifest, toy.split, toy.frames)[0]
    x, _, _ = ClipDataset(plain, RGB, train=True, seed=1)[0, 0]
    assert x.shape == (2, 4, 24, 24)
    assert torch.equal(x[:, 3], torch.full((2, 24, 24), 0.1))
    x, _, _ = ClipDataset(plain, RGB, train=True, seed=1, map_channel=False)[0, 0]
    assert x.shape == (2, 3, 24, 24)


def test_a_draw_depends_on_seed_epoch_and_item(clips: list[Clip]) -> None:
    def draw(seed: int, epoch: int, index: int) -> torch.Tensor:
        return ClipDataset(clips, FLOW, train=True, seed=seed)[epoch, index][0]

    assert torch.equal(draw(1, 2, 3), draw(1, 2, 3))
    assert not torch.equal(draw(1, 2, 3), draw(1, 3, 3))
    assert not torch.equal(draw(1, 2, 3), draw(2, 2, 3))
    assert not torch.equal(draw(1, 2, 3), draw(1, 2, 3 + len(clips))), "the same clip, drawn anew"
    still = ClipDataset(clips, FLOW, train=False, seed=1)
    assert torch.equal(still[0, 3][0], still[5, 3][0])


@pytest.mark.parametrize("num_workers", [1, 2])
def test_worker_count_changes_nothing(
    clips: list[Clip], num_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(workers: int) -> list[torch.Tensor]:
        batches = EpochBatches(len(clips), batch_size=5, seed=1, epoch=3)
        dataset = ClipDataset(clips, FLOW, train=True, seed=1)
        monkeypatch.setenv("FLOWSIGHT_WORKERS", str(workers))
        return [x for x, _, _ in loader(dataset, batches)]

    for one, other in zip(load(0), load(num_workers), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("kind", ["rgb", "rgb without a map", "flow", "flow with maps"])
def test_a_batch_is_its_items_whatever_reads_it(toy: Any, kind: str, train: bool) -> None:
    flow = kind.startswith("flow")
    maps = toy.maps if "maps" in kind else None
    clips = load_clips(toy.manifest, toy.split, toy.flow if flow else toy.frames, maps)[0]
    dataset = ClipDataset(
        clips, FLOW if flow else RGB, train=train, seed=1, map_channel="without" not in kind
    )
    keys = [(4, index) for index in (3, 0, 17, 9, 3)]
    one_by_one = default_collate([dataset[key] for key in keys])
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            batch = dataset.__getitems__(keys)
            for whole, single in zip(batch, one_by_one, strict=True):
                assert whole.dtype == single.dtype and whole.shape == single.shape
                assert whole.contiguous().numpy().tobytes() == single.numpy().tobytes()
    finally:
        torch.set_num_threads(threads)
    assert batch[0].flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


def test_stack_is_interleaved_and_repeats_the_last_field(clips: list[Clip]) -> None:
    images = read_images(replace(clips[0], maps=None), FLOW, np.array([0, 4]))
    fields = pack.read_flow(clips[0].pack, range(6))
    np.testing.assert_array_equal(images[0], fields[[0, 1, 2]].reshape(6, 36, 48))
    np.testing.assert_array_equal(images[1], fields[[4, 5, 5]].reshape(6, 36, 48))


def test_maps_are_read_at_the_frame_and_scaled_to_it(clips: list[Clip]) -> None:
    images = read_images(clips[0], FLOW, np.array([2]))
    assert images.shape == (1, 7, 36, 48)
    assert clips[0].maps is not None
    small = pack.read_maps(clips[0].maps, [2])[0]
    # a map's cell is 8 px wide and 7.2 px high: its middle keeps its value
    assert abs(int(images[0, 6, 18, 28]) - int(small[2, 3])) < 40


def test_a_clip_shorter_than_a_stack(clips: list[Clip]) -> None:
    long_stack = replace(FLOW, stack_length=10, num_segments=1)
    x, _, _ = ClipDataset(clips, long_stack, train=False, seed=0)[0, 0]
    assert x.shape == (1, 21, 24, 24)
    assert torch.equal(x[0, 10], x[0, 18]), "u of field 5 fills the stack"
    with pytest.raises(InputError, match="at least 2 frames"):
        read_images(replace(clips[0], num_frames=1), FLOW, np.array([0]))


def test_full_frames(toy: Any, clips: list[Clip]) -> None:
    x = full_frames(clips[0], FLOW, range(7))
    assert x.shape == (7, 7, 30, 40) and x.dtype == torch.float32
    own = read_images(clips[0], FLOW, np.arange(7))[:, 6].astype(np.float32) / 255
    assert x[:, 6].mean().item() == pytest.approx(own.mean(), abs=0.02), "what it was trained with"
    constant = full_frames(replace(clips[0], maps=None), FLOW, range(7))[:, 6]
    assert torch.equal(constant, torch.full((7, 30, 40), 0.1))
    plain = load_clips(toy.manifest, toy.split, toy.frames)[0]
    assert full_frames(plain[0], RGB, [0, 6]).shape == (2, 4, 30, 40)
    assert full_frames(plain[0], RGB, [0], map_channel=False).shape == (1, 3, 30, 40)


# clips for networks over time

FILM = replace(RGB, num_segments=1, clip_length=4)


def test_timeline(toy: Any) -> None:
    clip = replace(load_clips(toy.manifest, toy.split, toy.frames)[0][0], fps=12.0)
    assert timeline(clip, FILM).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert timeline(clip, replace(FILM, fps=16.0)).tolist() == [0, 0, 1, 2, 3, 3, 4, 5, 6, 6]
    assert timeline(clip, replace(FILM, fps=6.0)).tolist() == [0, 2, 4, 6]
    of_flow = replace(FILM, fps=6.0, modality="flow")
    assert timeline(clip, of_flow).tolist() == [0, 2, 4], "a field less than frames"
    assert [count_positions(clip, replace(FILM, fps=f)) for f in (None, 16.0, 6.0, 3.0)] == [
        4, 7, 1, 1,
    ]  # fmt: skip
    with pytest.raises(InputError, match="frame rate of Down/clip_01 in the manifest, got None"):
        timeline(replace(clip, fps=None), replace(FILM, fps=16.0))


def test_the_frame_rate_comes_from_the_manifest(toy: Any, tmp_path: Path) -> None:
    lines = (toy.manifest / "clips.csv").read_text().splitlines()
    text = "\n".join([lines[0] + ",fps", *(line + ",25.0" for line in lines[1:])])
    (tmp_path / "clips.csv").write_text(text)
    (tmp_path / "classes.csv").write_bytes((toy.manifest / "classes.csv").read_bytes())
    assert {c.fps for c in load_clips(tmp_path, toy.split, toy.frames)[0]} == {25.0}
    assert {c.fps for c in load_clips(toy.manifest, toy.split, toy.frames)[0]} == {None}


@pytest.mark.parametrize("modality", ["rgb", "flow"])
def test_clips_are_read_in_the_order_of_time(toy: Any, modality: str) -> None:
    packs = toy.frames if modality == "rgb" else toy.flow
    clip = replace(load_clips(toy.manifest, toy.split, packs)[0][0], fps=12.0)
    params = replace(FILM, modality=modality, fps=16.0)
    images = read_images(clip, params, np.array([0, 5]))
    if modality == "rgb":  # of 0 0 1 2 3 3 4 5 6 6, the second one runs over the end
        stored = pack.read_frames(clip.pack, [0, 0, 1, 2, 3, 4, 5, 6]).transpose(0, 3, 1, 2)
    else:  # of 0 0 1 2 3 3 4 5
        stored = pack.read_flow(clip.pack, [0, 0, 1, 2, 3, 4, 5, 5])
    assert np.array_equal(images, stored)
    x = network_input(images, params, map_channel=False)
    assert x.shape == (2, stored.shape[1], 4, 36, 48)
    for n in range(2):
        one = transforms.normalise(stored[4 * n : 4 * n + 4], modality)  # (T, C, H, W)
        assert np.array_equal(x[n].numpy(), one.transpose(1, 0, 2, 3))


def test_a_clip_is_cropped_and_mirrored_as_one(toy: Any) -> None:
    clips = load_clips(toy.manifest, toy.split, toy.flow)[0]
    params = replace(FILM, modality="flow", num_segments=2)
    train = ClipDataset(clips, params, train=True, seed=3, map_channel=False)
    x, label, index = train[5, 2]
    assert x.shape == (2, 2, 4, 24, 24) and (label, index) == (clips[2].label, 2)
    assert torch.equal(x, train[5, 2][0]) and not torch.equal(x, train[6, 2][0])
    rng = np.random.default_rng((3, 5, 2))
    starts = sampling.random_positions(3, 2, rng)
    images = transforms.augment(
        read_images(clips[2], params, starts),
        modality="flow", crop_px=24, scales=params.scales, flip=True, rng=rng,
    )  # fmt: skip
    assert torch.equal(x, network_input(images, params, map_channel=False))
    batch, _, _ = train.__getitems__([(5, 2), (6, 2)])
    assert torch.equal(batch, torch.stack([x, train[6, 2][0]])), "a batch holds its items"
    test = ClipDataset(
        clips, replace(params, num_segments=1), train=False, seed=3, map_channel=False
    )
    middle = transforms.centre_crop(
        read_images(clips[2], params, np.array([1])), resize_px=30, crop_px=24
    )
    assert torch.equal(test[0, 2][0], network_input(middle, params, map_channel=False))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"clip_length": 0}, "clip_length must be at least 1"),
        ({"fps": 16.0}, "fps needs clip_length"),
        ({"clip_length": 4, "fps": 0.0}, "fps must be positive"),
        ({"clip_length": 4, "modality": "flow", "stack_length": 3}, "stack_length of clips"),
    ],
)
def test_parameters_of_clips_are_checked(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(RGB, **wrong)
