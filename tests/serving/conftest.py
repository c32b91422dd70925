"""A small trained system (random weights) as the pipeline would leave it, and videos."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from ruamel.yaml import YAML

from flowsight.serving import bundle, origin

if TYPE_CHECKING:
    import torch

    from flowsight.params.config import Params

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("Jump", "Run", "Walk")
MOST_BYTES = 300_000


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository after a run: parameters, checkpoints, the fusion weight, dvc.lock."""
    return make_tree(tmp_path_factory.mktemp("tree"))


def make_tree(root: Path) -> Path:
    import torch

    from flowsight.params import config

    shutil.copy(ROOT / "params.yaml", root / "params.yaml")
    yaml = YAML()
    values = yaml.load(root / "params.yaml")
    values["dataset"]["name"] = "sample"
    values["frames"]["size"] = [72, 54]
    values["frames"]["quality"] = 80
    values["flow"] |= {"backend": "cpu", "preset": "fast", "quality": 70}
    yaml.dump(values, root / "params.yaml")
    params = config.load(root / "params.yaml")
    torch.manual_seed(3)
    for system in ("two_stream", "residual3d"):
        for name in params.system(system).rows:
            network = add_network(root, params, name)
            if name in ("spatial", "temporal"):
                _add_attention(root, params, name, network)
    _add_images(root, params)
    _add_scenes(root, params)
    (root / "data/manifests/sample").mkdir(parents=True)
    lines = [f"{i},{name}" for i, name in enumerate(CLASSES)]
    (root / "data/manifests/sample/classes.csv").write_text("\n".join(["index,label", *lines]))
    (root / "results/two_stream").mkdir(parents=True)
    table = "fusion,split_id,stream,weight,weight_source\nattention,1,spatial,0.35,validation\n"
    (root / "results/two_stream/per_split.csv").write_text(table)
    lock(root)
    return root


def add_network(root: Path, params: Params, name: str) -> torch.nn.Module:
    """A checkpoint of a row, as if it was trained."""
    from flowsight import contract
    from flowsight.classifiers import networks
    from flowsight.nn import checkpoint

    model = contract.part(params.owner(name), "network")
    network = networks.build(model, params.row(name), len(CLASSES)).eval()
    _lively(network)
    checkpoint.save(network.state_dict(), root / f"checkpoints/sample/{name}-1/model.pt")
    return network


def _add_attention(root: Path, params: Params, name: str, network: torch.nn.Module) -> None:
    import torch

    from flowsight.nn import checkpoint
    from flowsight.nn.gradcam import layer_features
    from flowsight.systems.two_stream.maps import attention_net

    row = params.row(name)
    channels = (3 if row.input.modality == "rgb" else 2 * row.input.stack_length) + 1
    x = torch.rand(1, channels, row.input.crop_px, row.input.crop_px)
    features = layer_features(network, x, row.network.target_layers)
    attention = attention_net.build(
        in_channels=[f.shape[1] for f in features],
        hidden_channels=params.system("two_stream").attention.hidden_channels,
    )
    _lively(attention)
    checkpoint.save(
        attention.state_dict(), root / f"checkpoints/sample/attention-{name}-1/model.pt"
    )


def soft_picture(height: int, width: int, seed: int) -> np.ndarray:
    """(H, W, 3) uint8: coloured spots."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.float32)
    soft = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)
    return soft.astype(np.uint8)


def _add_images(root: Path, params: Params) -> None:
    """Networks over images, one of them slimmed; of a picture about half is salient to them."""
    import torch

    from flowsight.nn import checkpoint
    from flowsight.systems.saliency import networks as saliency_networks

    block, data = params.system("saliency"), params.images.name
    for name, row in block.rows.items():
        network = saliency_networks.build(row)
        with torch.no_grad():
            for key, value in network.named_parameters():
                if "score" in key:  # zero before training: every map would be grey
                    value.normal_()
        made = saliency_networks.slimmed(network, row, block.plan_of(row), seed=0)
        checkpoint.save(made.state_dict(), root / f"checkpoints/{data}/{name}-1/model.pt")


def _add_scenes(root: Path, params: Params) -> None:
    """Networks over scenes, to which about half of a picture moves."""
    import torch

    from flowsight.nn import checkpoint
    from flowsight.systems.background import networks as scene_networks
    from flowsight.systems.background.sequences import network_input

    block, image = params.system("background"), soft_picture(32, 44, 9)[None]
    for name, row in block.rows.items():
        network = scene_networks.build(row).eval()
        place = image[0] if row.input.background_frames else None
        with torch.no_grad():
            for value in network.parameters():
                value.mul_(2)
            x = torch.from_numpy(network_input(np.repeat(image, 6, axis=0), place))
            logits, _ = network(x[None])
            network.dense.bias -= logits[0, -1].median()
        checkpoint.save(
            network.state_dict(), root / f"checkpoints/{params.scenes.name}/{name}-both/model.pt"
        )


def _lively(network: object) -> None:
    """Weights that make the output depend on the input, as trained ones do."""
    import torch

    with torch.no_grad():
        for name, value in network.state_dict().items():  # type: ignore[attr-defined]
            if name.endswith("running_mean"):
                value.normal_(0, 0.1)
            elif value.ndim >= 2:
                value.mul_(2)


def lock(root: Path) -> None:
    """`dvc.lock` of what lies there."""
    outs = sorted(p.parent.relative_to(root).as_posix() for p in root.glob("checkpoints/*/*/*.pt"))
    outs.append("results/two_stream")
    listed = [{"path": out, "md5": origin.md5(root / out)} for out in outs]
    text = {"schema": "2.0", "stages": {"all": {"cmd": "true", "outs": listed}}}
    (root / "dvc.lock").write_text(json.dumps(text))  # JSON is YAML


@pytest.fixture(scope="session")
def folder(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The system as a bundle."""
    out = tmp_path_factory.mktemp("bundle") / "two_stream"
    bundle.write_bundle("two_stream", out, root=tree)
    return out


@pytest.fixture(scope="session")
def system(folder: Path) -> bundle.Bundle:
    return bundle.load_bundle(folder, device="cpu")


@pytest.fixture(scope="session")
def clips_folder(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network over clips as a bundle."""
    out = tmp_path_factory.mktemp("bundle") / "residual3d"
    bundle.write_bundle("residual3d", out, root=tree)
    return out


@pytest.fixture(scope="session")
def over_clips(clips_folder: Path) -> bundle.Bundle:
    return bundle.load_bundle(clips_folder, device="cpu")


@pytest.fixture(scope="session")
def images_folder(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "saliency"
    bundle.write_bundle("saliency", out, root=tree)
    return out


@pytest.fixture(scope="session")
def over_images(images_folder: Path) -> bundle.Bundle:
    return bundle.load_bundle(images_folder, device="cpu")


@pytest.fixture(scope="session")
def scenes_folder(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "background"
    bundle.write_bundle("background", out, root=tree)
    return out


@pytest.fixture(scope="session")
def over_scenes(scenes_folder: Path) -> bundle.Bundle:
    return bundle.load_bundle(scenes_folder, device="cpu")


@pytest.fixture(scope="session")
def make_video() -> Callable[..., Path]:
    return moving_video


def moving_video(path: Path, num_frames: int = 8, *, seed: int = 0, fps: float = 10) -> Path:
    """A texture moving 2 px to the right and 1 px down a frame, 96 x 72, in any codec."""
    noise = np.random.default_rng(seed).integers(0, 256, (160, 256, 3)).astype(np.float32)
    wide = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = {".avi": "MJPG", ".mp4": "mp4v", ".webm": "VP80"}[path.suffix]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (96, 72))
    for index in range(num_frames):
        left, top = 150 - 2 * index % 150, 80 - index % 80
        writer.write(wide[top : top + 72, left : left + 96].astype(np.uint8))
    writer.release()
    assert path.stat().st_size < MOST_BYTES
    return path


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    """A served folder: good videos, and what must not be read."""
    root = tmp_path_factory.mktemp("served") / "root"
    make_video(root / "walk.avi", 8)
    make_video(root / "deep/long.mp4", 40, seed=1)
    make_video(root / "one.avi", 1)
    make_video(root.parent / "secret.avi", 8, seed=2)
    (root / "text.avi").write_text("I am no video, only a text.\n" * 20)
    (root / "noise.avi").write_bytes(np.random.default_rng(0).bytes(20_000))
    (root / "empty.avi").write_bytes(b"")
    (root / "out.avi").symlink_to(root.parent / "secret.avi")
    (root / "in.avi").symlink_to(root / "walk.avi")
    (root / "up").symlink_to(root.parent)
    (root / "loop").symlink_to(root / "loop")
    return root
