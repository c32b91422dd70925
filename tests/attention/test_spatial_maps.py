"""Where a network over time looks, frame by frame."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowsight.batches.clips import load_clips, network_input, read_images
from flowsight.batches.transforms import resize_short_side
from flowsight.classifiers import networks
from flowsight.classifiers.params import RowParams
from flowsight.contract import Job
from flowsight.errors import InputError
from flowsight.nn import checkpoint
from flowsight.params import config
from flowsight.systems.residual3d import network as residual3d
from flowsight.systems.residual3d import spatial_attention
from flowsight.video import pack
from tests.conftest import job_of

ROOT = Path(__file__).resolve().parents[2]
BASE = config.load(ROOT / "params.yaml").row("resnet3d_attention")
ROW = dataclasses.replace(
    BASE,
    network=dataclasses.replace(BASE.network, width=2, target_layers=("layer1",)),
    input=dataclasses.replace(BASE.input, resize_px=32, crop_px=32, clip_length=3, fps=None),
)


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return networks.build(residual3d, ROW, 2).eval()


def weights(network: torch.nn.Module, clip: Any, starts: list[int]) -> list[np.ndarray]:
    """Ms of layer1 (its frames are the clip's), computed layer by layer."""
    found = []
    for start in starts:
        images = resize_short_side(read_images(clip, ROW.input, np.array([start])), 32)
        x = network.stem(network_input(images, ROW.input, map_channel=False))
        block = network.layer1[0]
        residual = block.attention.channel(block.conv2(block.conv1(x)))
        found.append(block.attention.spatial.weights(residual)[0, 0].detach().numpy())
    return found


def test_every_frame_has_the_map_of_its_time(toy: Any, network: torch.nn.Module) -> None:
    """7 frames, clips of 3 that start at 0, 2 and 4: frames 2 and 4 are seen twice."""
    clip = load_clips(toy.manifest, toy.split, toy.frames)[0][0]
    (module,) = residual3d.spatial_attentions(network, "layer1")
    maps = spatial_attention.clip_maps(network, module, clip, ROW.input)
    first, second, third = weights(network, clip, [0, 2, 4])
    wanted = [
        first[0], first[1], (first[2] + second[0]) / 2, second[1],
        (second[2] + third[0]) / 2, third[1], third[2],
    ]  # fmt: skip
    assert maps.shape == (7, 16, 22)
    np.testing.assert_allclose(maps, np.stack(wanted), atol=1e-6)


def test_frames_that_the_rate_leaves_out_have_the_one_before(
    toy: Any, network: torch.nn.Module
) -> None:
    clip = dataclasses.replace(load_clips(toy.manifest, toy.split, toy.frames)[0][0], fps=12.0)
    (module,) = residual3d.spatial_attentions(network, "layer1")
    params = dataclasses.replace(ROW.input, fps=4.0)  # frames 0, 3 and 6
    maps = spatial_attention.clip_maps(network, module, clip, params)
    for frame, source in enumerate([0, 0, 0, 3, 3, 3, 6]):
        assert np.array_equal(maps[frame], maps[source])
    assert not np.array_equal(maps[0], maps[3])


def test_maps_of_a_short_clip_and_of_flow(toy: Any) -> None:
    torch.manual_seed(0)
    params = dataclasses.replace(ROW.input, modality="flow", clip_length=16)
    row = dataclasses.replace(ROW, input=params)
    network = networks.build(residual3d, row, 2).eval()
    clip = load_clips(toy.manifest, toy.split, toy.flow)[0][0]
    (module,) = residual3d.spatial_attentions(network, "layer1")
    maps = spatial_attention.clip_maps(network, module, clip, params)
    assert len(maps) == 7 and np.array_equal(maps[6], maps[5]), "6 fields; the tail repeats"


def test_stretched() -> None:
    maps = np.array([[[0.4, 0.5], [0.6, 0.4]], [[0.5, 0.5], [0.5, 0.5]]], np.float32)
    wanted = [[[0, 0.5], [1, 0]], [[0, 0], [0, 0]]]
    np.testing.assert_allclose(spatial_attention.stretched(maps), wanted, atol=1e-6)


def job(toy: Any, row: RowParams, trained: Path, out: Path) -> Job:
    block = config.load(ROOT / "params.yaml").system("residual3d")
    return job_of(
        "residual3d",
        dataclasses.replace(block, rows={"row": row}),
        "row",
        out,
        manifest=toy.manifest,
        split_file=toy.split,
        packs=toy.frames,
        checkpoint=trained,
    )


def test_packs_of_the_test_clips(toy: Any, network: torch.nn.Module, tmp_path: Path) -> None:
    checkpoint.save(network.state_dict(), tmp_path / "trained" / "model.pt")
    for name in ("once", "twice"):
        spatial_attention.spatial_attention(job(toy, ROW, tmp_path / "trained", tmp_path / name))
    clips = [
        c.clip_id for c in load_clips(toy.manifest, toy.split, toy.frames)[0] if c.subset == "test"
    ]
    made = sorted(p.relative_to(tmp_path / "once") for p in (tmp_path / "once").rglob("*.zip"))
    assert [str(path.with_suffix("")) for path in made] == sorted(clips)
    for path in made:
        assert (tmp_path / "once" / path).read_bytes() == (tmp_path / "twice" / path).read_bytes()
        maps = pack.read_maps(tmp_path / "once" / path, list(range(7)))
        assert maps.min() == 0 and (maps.max(axis=(1, 2)) == 255).all()


def test_a_level_without_attention_is_refused(toy: Any, tmp_path: Path) -> None:
    row = dataclasses.replace(
        ROW, network=dataclasses.replace(ROW.network, target_layers=("layer7",))
    )
    checkpoint.save(networks.build(residual3d, row, 2).state_dict(), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"expected a level with spatial attention \(layer1, "):
        spatial_attention.spatial_attention(job(toy, row, tmp_path, tmp_path / "maps"))
