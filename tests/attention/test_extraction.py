"""The attention stage: what it writes, and that test labels cannot leak."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from flowsight.batches.clips import full_frames, load_clips
from flowsight.classifiers.params import RowParams
from flowsight.errors import InputError
from flowsight.nn import checkpoint, gradcam
from flowsight.params import config
from flowsight.systems.two_stream import network as two_stream
from flowsight.systems.two_stream.maps import attention_net, extraction
from flowsight.systems.two_stream.params import AttentionParams
from flowsight.video import pack

CLASSES = ("kick", "walk")
SUBSETS = ("train", "train", "train", "val", "test", "test")
ATTENTION = AttentionParams(
    hidden_channels=4, epochs=2, batch_size=4, lr=0.01, val_share=0.2, max_frames=3, num_pictures=2
)


@pytest.fixture(scope="module")
def params(repository: Path) -> config.Params:
    return config.load(repository / "params.yaml")


def row_of(
    params: config.Params, modality: str, layers: tuple[str, ...] = ("layer4",)
) -> RowParams:
    row = params.row("spatial" if modality == "rgb" else "temporal")
    network = dataclasses.replace(
        row.network, backbone="tiny", target_layers=layers, map_channel=True
    )
    inputs = dataclasses.replace(
        row.input, stack_length=1 if modality == "rgb" else 3, resize_px=32, crop_px=24
    )
    return dataclasses.replace(row, network=network, input=inputs)


def write_table(path: Path, columns: str, rows: list[tuple[object, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns.split(","), *rows])


def make_data(root: Path, modality: str, labels: dict[str, str] | None = None) -> dict[str, Path]:
    """Twelve clips of 5 frames, 40 x 36 px; `labels` overrides the manifest's."""
    rng = np.random.default_rng(0)
    rows, split = [], []
    for name in CLASSES:
        for i, subset in enumerate(SUBSETS):
            clip_id, shard, count = f"{name}/c{i}", i % 2, 5
            path = root / "packs" / str(shard) / f"{clip_id}.zip"
            path.parent.mkdir(parents=True, exist_ok=True)
            meta = {"clip_id": clip_id, "num_frames": count, "size": [40, 36]}
            members: list[tuple[str, bytes]] = []
            if modality == "rgb":
                for k in range(count):
                    image = rng.integers(0, 256, (36, 40, 3), dtype=np.uint8)
                    members.append((pack.frame_name(k), pack.encode_jpeg(image, 95)))
            else:
                meta["num_fields"] = count - 1
                for k in range(count - 1):
                    for member in pack.flow_names(k):
                        grey = rng.integers(0, 256, (36, 40), dtype=np.uint8)
                        members.append((member, pack.encode_jpeg(grey, 95)))
            pack.write_pack(path, members, meta)
            rows.append((clip_id, (labels or {}).get(clip_id, name), count, shard))
            split.append((clip_id, subset))
    write_table(root / "manifest" / "clips.csv", "clip_id,label,num_frames,shard", rows)
    write_table(root / "manifest" / "classes.csv", "index,label", list(enumerate(CLASSES)))
    write_table(root / "split.csv", "clip_id,subset", split)
    return {
        "manifest": root / "manifest",
        "split": root / "split.csv",
        "packs": root / "packs",
    }


def run(root: Path, row: RowParams, data: dict[str, Path], out: str = "out") -> Path:
    torch.manual_seed(0)
    network = two_stream.build(
        backbone="tiny",
        modality=row.input.modality,
        num_classes=len(CLASSES),
        stack_length=row.input.stack_length,
    )
    checkpoint.save(network.state_dict(), root / "phase1" / "model.pt")
    extraction.extract(
        name="spatial",
        row=row,
        attention=ATTENTION,
        **data,
        checkpoint=root / "phase1",
        out=root / out / "maps",
        network_out=root / out / "network",
        seed=1,
        threads=1,
    )
    return root / out


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("modality", ["rgb", "flow"])
def test_writes_maps_of_every_frame(tmp_path: Path, params: config.Params, modality: str) -> None:
    row = row_of(params, modality)
    data = make_data(tmp_path, modality)
    out = run(tmp_path, row, data)
    clips, _ = load_clips(data["manifest"], data["split"], data["packs"])
    for clip in clips:
        path = out / "maps" / f"{clip.clip_id}.zip"
        meta = pack.read_meta(path)
        source = "grad_cam" if clip.subset == "train" else "attention_network"
        assert (meta["source"], meta["row"], meta["layers"]) == (source, "spatial", ["layer4"])
        maps = pack.read_maps(path, range(5))
        assert meta["num_maps"] == 5 and maps.shape == (5, 4, 5) and maps.dtype == np.uint8
        assert set(maps.max(axis=(1, 2))) <= {0, 255}
    assert len(contents(out / "maps")) == len(clips) + 2  # and two pictures
    assert set(contents(out / "network")) == {"model.pt", "history.csv"}
    header, *rows = (out / "network" / "history.csv").read_text().splitlines()
    assert header == "epoch,train_loss,val_loss" and len(rows) == 2


def test_maps_are_those_of_the_parts(tmp_path: Path, params: config.Params) -> None:
    row = row_of(params, "rgb", ("layer4", "layer2"))
    data = make_data(tmp_path, "rgb")
    out = run(tmp_path, row, data)
    clips, names = load_clips(data["manifest"], data["split"], data["packs"])
    stream = extraction.load_stream(row, len(names), tmp_path / "phase1")
    found = {clip.clip_id: clip for clip in clips}
    train, test = found["walk/c0"], found["walk/c5"]

    x = full_frames(train, row.input, range(5))
    assert x.shape == (5, 4, 32, 36) and set(x[:, 3].unique().tolist()) == {np.float32(0.1).item()}
    expected = gradcam.grad_cam(
        stream.network, x.to(stream.device), torch.ones(5).long(), row.network.target_layers
    )
    stored = pack.read_maps(out / "maps" / "walk" / "c0.zip", range(5))
    assert stored.shape == (5, 8, 9)
    np.testing.assert_allclose(stored, expected.cpu().numpy() * 255, atol=0.51)

    network = attention_net.build(in_channels=[96, 32], hidden_channels=4).eval()
    checkpoint.restore(network, out / "network" / "model.pt")
    x = full_frames(test, row.input, range(5))
    features = gradcam.layer_features(stream.network, x, row.network.target_layers)
    maps = network(features).detach()
    maps = maps / maps.amax((1, 2), keepdim=True)
    stored = pack.read_maps(out / "maps" / "walk" / "c5.zip", range(5))
    np.testing.assert_allclose(stored, maps.numpy() * 255, atol=0.51)


def test_same_bytes_again(tmp_path: Path, params: config.Params) -> None:
    row, data = row_of(params, "rgb"), make_data(tmp_path, "rgb")
    first = contents(run(tmp_path, row, data, "first"))
    assert first == contents(run(tmp_path, row, data, "second"))


def test_test_labels_change_no_byte(tmp_path: Path, params: config.Params) -> None:
    row = row_of(params, "rgb")
    first = contents(run(tmp_path / "a", row, make_data(tmp_path / "a", "rgb")))
    hidden = [f"{name}/c{i}" for name in CLASSES for i, s in enumerate(SUBSETS) if s != "train"]
    swapped = {c: "walk" if c.startswith("kick") else "kick" for c in hidden}
    data = make_data(tmp_path / "b", "rgb", swapped)
    assert "kick/c4,walk" in (data["manifest"] / "clips.csv").read_text()
    assert contents(run(tmp_path / "b", row, data)) == first
    # the same change to training clips does reach the maps, so the test can see labels
    data = make_data(tmp_path / "c", "rgb", {"kick/c0": "walk", "walk/c0": "kick"})
    third = contents(run(tmp_path / "c", row, data))
    assert third["maps/kick/c0.zip"] != first["maps/kick/c0.zip"]


def test_a_labelled_clip_is_refused_where_labels_must_not_be(
    tmp_path: Path, params: config.Params
) -> None:
    row, data = row_of(params, "rgb"), make_data(tmp_path, "rgb")
    run(tmp_path, row, data)
    clips, _ = load_clips(data["manifest"], data["split"], data["packs"])
    stream = extraction.load_stream(row, 2, tmp_path / "phase1")
    network = attention_net.build(in_channels=[96], hidden_channels=4).eval()
    with pytest.raises(ValueError, match="without its label"):
        extraction.predict_clips(stream, network, clips[-1:], tmp_path / "x", {})
    assert extraction.without_label(clips[0]).label == extraction.UNKNOWN


def test_failure_keeps_earlier_output(
    tmp_path: Path, params: config.Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, data = row_of(params, "rgb"), make_data(tmp_path, "rgb")
    before = contents(run(tmp_path, row, data))
    (data["packs"] / "1" / "walk" / "c5.zip").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"c5\.zip"):
        run(tmp_path, row, data)
    assert contents(tmp_path / "out") == before
    assert [p.name for p in (tmp_path / "out").iterdir() if p.name.startswith(".")] == []


def test_wrong_checkpoint_and_no_training_clips(tmp_path: Path, params: config.Params) -> None:
    row, data = row_of(params, "rgb"), make_data(tmp_path, "rgb")
    run(tmp_path, row, data)
    with pytest.raises(InputError, match=r"fc\.weight: 2x96 for 3x96"):
        extraction.load_stream(row, 3, tmp_path / "phase1")
    text = data["split"].read_text().replace("train", "test")
    data["split"].write_text(text)
    with pytest.raises(InputError, match="training clips"):
        run(tmp_path, row, data)


def test_few_frames_of_many_clips(
    tmp_path: Path, params: config.Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, data = row_of(params, "rgb"), make_data(tmp_path, "rgb")
    run(tmp_path, row, data)
    clips, _ = load_clips(data["manifest"], data["split"], data["packs"])
    stream = extraction.load_stream(row, 2, tmp_path / "phase1")
    assert extraction.frames_to_learn(stream, clips, 3) == [3] * 12
    size = 96 * 4 * 5 * 4  # bytes of one frame's features
    monkeypatch.setattr(extraction, "_EXAMPLE_BYTES", 25 * size)
    assert extraction.frames_to_learn(stream, clips, 3) == [2] * 12
    monkeypatch.setattr(extraction, "_EXAMPLE_BYTES", 4 * size)
    assert extraction.frames_to_learn(stream, clips, 3) == [0, 1, 0] * 4
    examples = extraction.explain_clips(stream, clips, tmp_path / "few", {}, max_frames=3)
    assert [e.clip_id for e in examples] == [clips[i].clip_id for i in (1, 4, 7, 10)]


def test_evenly() -> None:
    assert extraction.evenly(9, 3) == [1, 4, 7]
    assert extraction.evenly(2, 5) == [0, 1]
    assert extraction.evenly(5, 0) == []
    assert extraction.evenly(10, 10) == list(range(10))


def test_pictures_are_strips_of_three_frames(tmp_path: Path, params: config.Params) -> None:
    out = run(tmp_path, row_of(params, "flow"), make_data(tmp_path, "flow"))
    names = sorted(path.name for path in (out / "maps" / "pictures").iterdir())
    assert names == ["kick__c5.png", "walk__c5.png"]
    picture = cv2.imread(str(out / "maps" / "pictures" / names[0]))
    assert picture is not None and picture.shape == (36, 120, 3)
