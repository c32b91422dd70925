"""Scores of clips: views, crops, averages, the file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from flowsight.batches import transforms
from flowsight.batches.clips import load_clips, network_input, read_images
from flowsight.batches.params import InputParams
from flowsight.classifiers import networks, params, scores
from flowsight.classifiers.params import NetworkParams, RowParams, StartParams
from flowsight.errors import InputError
from flowsight.nn import checkpoint
from flowsight.params import config
from flowsight.systems.residual3d import network as residual3d
from flowsight.systems.two_stream import network as two_stream

ROOT = Path(__file__).resolve().parents[1]
BASE = dataclasses.replace(config.load(ROOT / "params.yaml"), threads=1)

ROW = RowParams(
    start=StartParams(),
    network=NetworkParams(
        backbone="tiny", dropout=0.5, map_channel=True, target_layers=("layer4",)
    ),
    input=InputParams(
        modality="flow",
        stack_length=2,
        num_segments=1,
        resize_px=30,
        crop_px=24,
        scales=(1.0,),
        flip=True,
        map_value=0.1,
    ),
    train=BASE.row("temporal").train,
    test=params.TestParams(num_views=8, num_crops=10),
)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """Folder with some weights."""
    torch.manual_seed(0)
    checkpoint.save(
        networks.build(two_stream, ROW, 2).state_dict(), tmp_path / "trained" / "model.pt"
    )
    return tmp_path / "trained"


def predict(toy: Any, trained: Path, row: RowParams = ROW, **options: Any) -> Any:
    options = {"model": two_stream, "packs": toy.flow, "split": toy.split, **options}
    return scores.predict(
        row=row, params=BASE, manifest=toy.manifest, checkpoint_dir=trained, device="cpu", **options
    )


def test_table(toy: Any, trained: Path, tmp_path: Path) -> None:
    scores.write(predict(toy, trained), tmp_path / "deep" / "p.parquet")
    table = pd.read_parquet(tmp_path / "deep" / "p.parquet")
    assert list(table.columns) == ["clip_id", "subset", "label", "logit_Up", "logit_Down"]
    assert table["clip_id"].tolist() == sorted(toy.clip_ids[10:])
    assert table.set_index("clip_id")["subset"].to_dict() == {
        clip_id: "val" if i < 3 else "test" for i, clip_id in enumerate(toy.clip_ids[10:])
    }
    assert (table["label"] == table["clip_id"].str.split("/").str[0]).all()
    assert table["logit_Up"].dtype == np.float32
    scores.write(predict(toy, trained), tmp_path / "again.parquet")
    first, again = (tmp_path / name for name in ("deep/p.parquet", "again.parquet"))
    assert first.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("num_crops", [1, 10])
def test_logits_are_the_mean_over_views_and_crops(toy: Any, trained: Path, num_crops: int) -> None:
    """Computed once more, view by view and crop by crop."""
    row = dataclasses.replace(ROW, test=params.TestParams(num_views=8, num_crops=num_crops))
    network = networks.build(two_stream, row, 2).eval()
    checkpoint.restore(network, trained / "model.pt")
    clip = next(c for c in load_clips(toy.manifest, toy.split, toy.flow)[0] if c.subset == "test")
    logits = []
    for position in (0, 0, 1, 2, 2, 3, 4, 4):  # 8 views of 5 positions, middles of eighths
        images = transforms.resize_short_side(
            read_images(clip, row.input, np.array([position])), 30
        )
        boxes = transforms.corner_boxes(30, 40, 24, 24)
        for side in (images, transforms.mirror(images, "flow"))[: 1 + (num_crops == 10)]:
            for box in boxes[4:] if num_crops == 1 else boxes:
                inputs = network_input(transforms.crop(side, box), row.input, map_channel=True)
                logits.append(network(inputs)[0])
    assert len(logits) == 8 * num_crops
    expected = torch.stack(logits).mean(dim=0)
    torch.testing.assert_close(scores.clip_logits(network, clip, row), expected)


@pytest.mark.parametrize("modality", ["rgb", "flow"])
def test_each_frame_is_decoded_once(
    toy: Any, modality: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """25 views of stacks that overlap, ten crops: as many decodes as there are distinct images."""
    length = 3 if modality == "flow" else 1
    inputs = dataclasses.replace(ROW.input, modality=modality, stack_length=length)
    row = dataclasses.replace(ROW, input=inputs, test=params.TestParams(num_views=25, num_crops=10))
    packs = toy.flow if modality == "flow" else toy.frames
    clip = load_clips(toy.manifest, toy.split, packs)[0][0]
    monkeypatch.setenv("FLOWSIGHT_MICRO_BATCH", "7")  # many chunks do not read again
    decoded: list[bytes] = []
    decode = cv2.imdecode

    def counted(data: np.ndarray, flags: int) -> np.ndarray:
        decoded.append(data.tobytes())
        return decode(data, flags)

    monkeypatch.setattr(cv2, "imdecode", counted)
    scores.clip_logits(networks.build(two_stream, row, 2).eval(), clip, row)
    # 7 frames; 6 fields, of two images each
    assert len(decoded) == len(set(decoded)) == (12 if modality == "flow" else 7)


def test_crops_are_made_chunk_by_chunk(
    toy: Any, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes as of all crops at once, whose memory is not needed."""
    network = networks.build(two_stream, ROW, 2).eval()
    checkpoint.restore(network, trained / "model.pt")
    clip = load_clips(toy.manifest, toy.split, toy.flow, toy.maps)[0][0]
    positions, counts = scores.view_positions(clip, ROW.input, ROW.test.num_views)
    images = read_images(clip, ROW.input, positions)
    crops = np.concatenate(transforms.ten_crop(images, modality="flow", resize_px=30, crop_px=24))
    for size in (3, 7, 50):  # within a kind of crop, across two, across all
        monkeypatch.setenv("FLOWSIGHT_MICRO_BATCH", str(size))
        total = torch.zeros(2, dtype=torch.float64)
        for start in range(0, len(crops), size):
            part = crops[start : start + size]
            with torch.inference_mode():
                x = network_input(part, ROW.input, map_channel=True)
                logits = network(x.to(memory_format=torch.channels_last)).double()
            weights = counts[np.arange(start, start + len(part)) % len(counts)]
            total += (logits * torch.from_numpy(weights)[:, None]).sum(dim=0)
        expected = (total / 80).float()
        assert torch.equal(scores.clip_logits(network, clip, ROW), expected)
    seen: list[int] = []
    make = network_input

    def watched(part: np.ndarray, *args: Any, **options: Any) -> Tensor:
        base = part if part.base is None else part.base
        seen.append(base.nbytes)
        return make(part, *args, **options)

    monkeypatch.setattr(scores, "network_input", watched)
    monkeypatch.setenv("FLOWSIGHT_MICRO_BATCH", "3")
    scores.clip_logits(network, clip, ROW)
    assert max(seen) == 3 * 5 * 24 * 24, "a chunk of crops is the most that is copied at once"


def test_views_of_a_short_clip_are_computed_once(toy: Any) -> None:
    clip = load_clips(toy.manifest, toy.split, toy.flow)[0][0]
    positions, counts = scores.view_positions(clip, ROW.input, 25)
    assert positions.tolist() == [0, 1, 2, 3, 4] and counts.tolist() == [5] * 5
    positions, counts = scores.view_positions(clip, ROW.input, 1)
    assert (positions.tolist(), counts.tolist()) == ([2], [1])


def test_memory_is_bounded_and_chunks_change_nothing(
    toy: Any, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = predict(toy, trained).to_pandas()
    monkeypatch.setenv("FLOWSIGHT_MICRO_BATCH", "7")
    sizes: list[int] = []
    build = networks.build

    def watched(model: ModuleType, row: RowParams, num_classes: int) -> nn.Module:
        def note(_: nn.Module, inputs: tuple[Tensor]) -> None:
            sizes.append(len(inputs[0]))

        network = build(model, row, num_classes)
        network.register_forward_pre_hook(note)
        return network

    monkeypatch.setattr(networks, "build", watched)
    cut = predict(toy, trained).to_pandas()
    assert max(sizes) == 7
    np.testing.assert_allclose(
        cut[["logit_Up", "logit_Down"]], whole[["logit_Up", "logit_Down"]], rtol=1e-4, atol=1e-6
    )
    monkeypatch.setenv("FLOWSIGHT_MICRO_BATCH", "none")
    with pytest.raises(InputError, match="FLOWSIGHT_MICRO_BATCH"):
        predict(toy, trained)


def test_maps_are_read(toy: Any, trained: Path) -> None:
    plain, attended = predict(toy, trained), predict(toy, trained, maps=toy.maps)
    assert plain.column("clip_id") == attended.column("clip_id")
    assert plain.column("logit_Up") != attended.column("logit_Up")


def test_faults(toy: Any, trained: Path, tmp_path: Path) -> None:
    split = tmp_path / "1.csv"
    split.write_text("clip_id,subset\nUp/clip_00,train\n")
    with pytest.raises(InputError, match="found none"):
        predict(toy, trained, split=split)
    with pytest.raises(InputError, match="nowhere"):
        predict(toy, tmp_path / "nowhere")
    wider = dataclasses.replace(ROW, input=dataclasses.replace(ROW.input, stack_length=3))
    with pytest.raises(InputError, match="expected the weights of this network"):
        predict(toy, trained, wider)
    state = checkpoint.load(trained / "model.pt")
    checkpoint.save(
        {name: t * float("nan") if t.is_floating_point() else t for name, t in state.items()},
        trained / "model.pt",
    )
    with pytest.raises(InputError, match="expected finite logits"):
        predict(toy, trained)


# networks over time

FILM = dataclasses.replace(
    ROW,
    network=NetworkParams(
        backbone="resnet3d_10",
        dropout=0.0,
        map_channel=False,
        target_layers=("layer2",),
        width=2,
        attention=params.BlockAttentionParams(
            channel=True, spatial=True, order="channel_first", reduction=2, kernel="7x7x7"
        ),
    ),
    input=dataclasses.replace(ROW.input, modality="rgb", stack_length=1, clip_length=3),
    test=params.TestParams(num_views=8, num_crops=10),
)


@pytest.mark.parametrize("num_crops", [1, 10])
@pytest.mark.parametrize("micro_batch", ["", "3"])
def test_clips_are_averaged_over_views_and_crops(
    toy: Any, num_crops: int, micro_batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Computed once more, clip by clip; 8 views of 5 positions repeat some."""
    monkeypatch.setenv("FLOWSIGHT_MICRO_BATCH", micro_batch)
    torch.manual_seed(0)
    row = dataclasses.replace(FILM, test=params.TestParams(num_views=8, num_crops=num_crops))
    network = networks.build(residual3d, row, 2).eval()
    clip = load_clips(toy.manifest, toy.split, toy.frames)[0][1]
    found = []
    for position in [0, 0, 1, 2, 2, 3, 4, 4]:
        frames = transforms.resize_short_side(
            read_images(clip, row.input, np.array([position])), 30
        )
        boxes = transforms.corner_boxes(*frames.shape[2:], 24, 24)
        for side in (frames, transforms.mirror(frames, "rgb")):
            for box in boxes:
                if num_crops == 10 or (side is frames and box is boxes[4]):
                    x = network_input(transforms.crop(side, box), row.input, map_channel=False)
                    assert x.shape == (1, 3, 3, 24, 24)
                    found.append(network(x)[0])
    assert len(found) == 8 * num_crops
    logits, right = scores.clip_scores(network, clip, row)
    torch.testing.assert_close(logits, torch.stack(found).mean(dim=0))
    best = torch.stack(found).argmax(dim=1)
    assert right == pytest.approx((best == clip.label).double().mean().item())
    other = dataclasses.replace(clip, label=1 - clip.label)
    assert scores.clip_scores(network, other, row)[1] == pytest.approx(1 - right)


def test_table_of_a_network_over_time(toy: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    checkpoint.save(networks.build(residual3d, FILM, 2).state_dict(), tmp_path / "model.pt")
    table = predict(toy, tmp_path, FILM, model=residual3d, packs=toy.frames).to_pandas()
    assert list(table.columns) == [
        "clip_id", "subset", "label", "logit_Up", "logit_Down", "views_right",
    ]  # fmt: skip
    assert table["views_right"].between(0, 1).all()
