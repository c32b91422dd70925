"""Rows that explain another row's network, as their stages run them: files, bytes, labels."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowsight.batches.clips import full_frames, load_clips
from flowsight.classifiers import networks
from flowsight.classifiers.params import ExplainsParams, RowParams
from flowsight.errors import InputError
from flowsight.nn import checkpoint, gradcam
from flowsight.params import config
from flowsight.params.config import Params
from flowsight.systems.two_stream import explain
from flowsight.systems.two_stream import network as two_stream
from flowsight.systems.two_stream.params import FusionParams
from flowsight.video import pack
from tests.conftest import job_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def params() -> Params:
    """The committed parameters, small, with rows that explain `spatial` and `temporal`."""
    given = config.load(ROOT / "params.yaml")
    block = given.system("two_stream")

    def small(row: RowParams) -> RowParams:
        length = 2 if row.input.modality == "flow" else 1
        size = {"resize_px": 30, "crop_px": 24, "stack_length": length}
        return dataclasses.replace(row, input=dataclasses.replace(row.input, **size))

    rows = {name: small(block.rows[name]) for name in ("spatial", "temporal")}
    for name, explained, explains, layers in (
        ("same", "spatial", {}, ("layer4",)),
        ("layers", "spatial", {}, ("layer2", "layer3", "layer4")),
        ("keys", "spatial", {"key_every": 3}, ("layer4",)),
        ("flow_keys", "temporal", {"key_every": 3}, ("layer4",)),
        ("learnt", "spatial", {"through": "temporal"}, ("layer4",)),
        ("flow_learnt", "temporal", {"through": "spatial"}, ("layer4",)),
    ):
        row = rows[explained]
        network = dataclasses.replace(row.network, target_layers=layers)
        rows[name] = dataclasses.replace(
            row,
            start=dataclasses.replace(
                row.start, explains=ExplainsParams(row=explained, **explains)
            ),
            network=network,
        )
    fusions = {"two": FusionParams(spatial="spatial", temporal="temporal")}
    small_block = dataclasses.replace(
        block,
        rows=rows,
        attention=dataclasses.replace(block.attention, epochs=3, max_frames=2, num_pictures=1),
        evaluate=dataclasses.replace(block.evaluate, headline=None, fusions=fusions),
    )
    return dataclasses.replace(given, systems={"two_stream": small_block}, threads=1)


def with_flow_bound(toy: Any, root: Path) -> Path:
    """The toy's flow packs, whose meta leaves out the bound that real ones have."""
    for path in toy.flow.rglob("*.zip"):
        meta = pack.read_meta(path)
        fields = pack.read_flow(path, range(meta["num_fields"]))
        jpegs = [
            (name, pack.encode_jpeg(component, 95))
            for i, field in enumerate(fields)
            for name, component in zip(pack.flow_names(i), field, strict=True)
        ]
        pack.write_pack(root / path.relative_to(toy.flow), jpegs, {**meta, "bound_px": 20.0})
    return root


def make(toy: Any, params: Params, row: str, root: Path, out: str = "out") -> Path:
    for name in ("spatial", "temporal"):
        torch.manual_seed(len(name))
        state = networks.build(two_stream, params.row(name), 2).state_dict()
        checkpoint.save(state, root / name / "model.pt")
    flow = root / "flow" if (root / "flow").is_dir() else with_flow_bound(toy, root / "flow")
    explains = params.row(row).start.explains
    assert explains is not None
    packs = {"spatial": toy.frames, "temporal": flow}
    given: dict[str, Path] = {
        "manifest": toy.manifest,
        "split_file": toy.split,
        "packs": packs[explains.row],
        "checkpoint": root / explains.row,
        "network": root / out / "network",
    }
    if explains.through is None:
        given["flow"] = flow
    else:
        given["through_packs"] = packs[explains.through]
        given["through_checkpoint"] = root / explains.through
    explain.explain(
        job_of("two_stream", params.system("two_stream"), row, root / out / "maps", **given)
    )
    return root / out


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def maps_in(out: Path, toy: Any) -> dict[str, np.ndarray]:
    return {c: pack.read_maps(out / "maps" / f"{c}.zip", range(7)) for c in toy.clip_ids}


def test_three_layers_are_the_mean_of_each(toy: Any, params: Params, tmp_path: Path) -> None:
    out = make(toy, params, "layers", tmp_path)
    found = maps_in(out, toy)["Up/clip_00"]
    meta = pack.read_meta(out / "maps" / "Up" / "clip_00.zip")
    assert (meta["row"], meta["layers"]) == ("layers", ["layer2", "layer3", "layer4"])
    row = params.row("layers")
    network = networks.build(two_stream, row, 2)
    checkpoint.restore(network, tmp_path / "spatial" / "model.pt")
    clips = {c.clip_id: c for c in load_clips(toy.manifest, toy.split, toy.frames)[0]}
    x = full_frames(clips["Up/clip_00"], row.input, range(7))
    names = row.network.target_layers
    size = gradcam.largest_size(gradcam.layer_features(network, x, names))
    single = [gradcam.grad_cam(network, x, torch.zeros(7).long(), [n], size=size) for n in names]
    expected = torch.stack([gradcam.normalise(m) for m in single]).mean(0)
    expected = expected / expected.amax((1, 2), keepdim=True)
    np.testing.assert_allclose(found, expected.numpy() * 255, atol=0.6)


@pytest.mark.parametrize(("row", "every"), [("keys", "same"), ("flow_keys", None)])
def test_key_frames_are_explained_and_the_others_filled_in(
    toy: Any, params: Params, tmp_path: Path, row: str, every: str | None
) -> None:
    out = make(toy, params, row, tmp_path)
    for clip, maps in maps_in(out, toy).items():
        assert maps.shape[0] == 7 and set(maps.max(axis=(1, 2))) <= {0, 255}
        meta = pack.read_meta(out / "maps" / f"{clip}.zip")
        assert (meta["key_every"], meta["num_maps"]) == (3, 7)
    if every is not None:  # 0, 3 and 6 are explained: Grad-CAM needs no learning, so as without
        whole = maps_in(make(toy, params, every, tmp_path, "whole"), toy)["Up/clip_00"]
        found = maps_in(out, toy)["Up/clip_00"]
        np.testing.assert_allclose(
            found[[0, 3, 6]].astype(int), whole[[0, 3, 6]].astype(int), atol=1
        )
        assert (found[[1, 2, 4, 5]] != whole[[1, 2, 4, 5]]).any()


@pytest.mark.parametrize("row", ["learnt", "flow_learnt"])
def test_learnt_maps_of_every_clip(toy: Any, params: Params, tmp_path: Path, row: str) -> None:
    out = make(toy, params, row, tmp_path)
    for clip, maps in maps_in(out, toy).items():
        meta = pack.read_meta(out / "maps" / f"{clip}.zip")
        assert (meta["source"], meta["row"]) == ("attention_network", row)
        assert maps.dtype == np.uint8 and set(maps.max(axis=(1, 2))) == {255}
    header, *lines = (out / "network" / "history.csv").read_text().splitlines()
    assert header == "epoch,train_loss,val_loss" and len(lines) == 3
    losses = [float(line.split(",")[1]) for line in lines]
    assert losses[-1] < losses[0]
    assert len(list((out / "maps" / "pictures").iterdir())) == 1


def test_same_bytes_again(toy: Any, params: Params, tmp_path: Path) -> None:
    for row in ("learnt", "keys"):
        first = contents(make(toy, params, row, tmp_path, f"{row}-1"))
        assert first == contents(make(toy, params, row, tmp_path, f"{row}-2"))


def test_labels_of_test_clips_change_no_byte(toy: Any, params: Params, tmp_path: Path) -> None:
    """Nor do training labels reach a learnt map but through the network's weights."""
    first = contents(make(toy, params, "learnt", tmp_path))
    hidden = [line.split(",") for line in toy.split.read_text().splitlines()[1:]]
    swap = {"Up": "Down", "Down": "Up"}

    def relabelled(subsets: tuple[str, ...]) -> Any:
        folder = tmp_path / "-".join(subsets)
        shutil.copytree(toy.manifest, folder)
        wrong = {clip for clip, subset in hidden if subset in subsets}
        lines = (folder / "clips.csv").read_text().splitlines()
        for i, line in enumerate(lines[1:], start=1):
            clip, label, *rest = line.split(",")
            lines[i] = ",".join([clip, swap[label] if clip in wrong else label, *rest])
        (folder / "clips.csv").write_text("\n".join(lines) + "\n")
        return dataclasses.replace(toy, manifest=folder)

    assert contents(make(relabelled(("val", "test")), params, "learnt", tmp_path, "b")) == first
    changed = contents(make(relabelled(("train",)), params, "learnt", tmp_path, "c"))
    assert changed["network/history.csv"] != first["network/history.csv"]


def test_a_row_that_explains_none_is_explained(toy: Any, params: Params, tmp_path: Path) -> None:
    """As phase 1 does it: what `same`, which explains `spatial` in its own way, gives too."""
    same = maps_in(make(toy, params, "same", tmp_path), toy)
    given = {
        "manifest": toy.manifest,
        "split_file": toy.split,
        "packs": toy.frames,
        "checkpoint": tmp_path / "spatial",
        "network": tmp_path / "own/network",
    }
    block = params.system("two_stream")
    explain.explain(job_of("two_stream", block, "spatial", tmp_path / "own/maps", **given))
    own = maps_in(tmp_path / "own", toy)
    assert all((own[clip] == same[clip]).all() for clip in toy.clip_ids)


@pytest.mark.parametrize("row", ["keys", "learnt"])
def test_what_a_row_needs_and_was_not_given(
    toy: Any, params: Params, tmp_path: Path, row: str
) -> None:
    given = {"manifest": toy.manifest, "split_file": toy.split, "packs": toy.frames}
    given |= {"checkpoint": tmp_path, "network": tmp_path / "network"}
    block = params.system("two_stream")
    job = job_of("two_stream", block, row, tmp_path / "maps", **given)
    option = {"keys": "--flow", "learnt": "--through-packs"}[row]
    with pytest.raises(InputError, match=f"expected {option} PATH, as dvc.yaml gives it"):
        explain.explain(job)
