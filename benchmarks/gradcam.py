"""Attention maps: seconds beside frame-by-frame back-propagation, and what key frames cost.

Peers: plain torch, one frame at a time, gradients of everything (weights too), and captum's
LayerGradCam, also one frame at a time. Ours: batches, gradients of nothing but the target layer;
then the same for every k-th frame only, maps between carried along the stored flow. All times
include reading the packs and, for key frames, the flow. Wall-clock, best of the rounds.

Quality is measured in the same run, on maps of frames that are no key frames: correlation and IoU
(of the parts above half the maximum) with the frame's own map, and scores on the true masks of
those same frames by own maps, carried maps, maps mixed where they are, and the nearest key frame's.

A trained repository (`flowsight repro`) is needed for quality: --root. Without checkpoints, or with
--backbone, the network has random weights: times are as with others, quality says nothing and is
left out.

    python benchmarks/gradcam.py [--root .] [--row spatial] [--backbone inception_v3] [--clips 8]
        [--every 2 4 8] [--rounds 2] [--threads 1] [--json build/benchmarks/gradcam.json]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from flowsight.batches.clips import Clip, full_frames, load_clips
from flowsight.classifiers import networks
from flowsight.classifiers.localization import measure, read_masks, read_truth_index
from flowsight.metrics import localization
from flowsight.nn import gradcam, seeding
from flowsight.params import config
from flowsight.params.config import Params
from flowsight.systems.two_stream import network as two_stream
from flowsight.systems.two_stream.maps import extraction
from flowsight.systems.two_stream.maps.extraction import Stream
from flowsight.systems.two_stream.maps.key_frames import (
    EVERY_FRAME,
    KeyFrames,
    between,
    read_fields,
)

ROOT = Path(__file__).resolve().parents[1]
Maps = np.ndarray
Method = Callable[[Clip], Maps]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="a repository with packs")
    parser.add_argument("--row", default="spatial")
    parser.add_argument("--backbone", help="another network, untrained (only times are printed)")
    parser.add_argument("--size", type=int, help="short side, px (with --backbone)")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--every", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=ROOT / "build/benchmarks/gradcam.json")
    args = parser.parse_args()
    params = config.load(args.root / "params.yaml")
    clips, stream = setting(params, args)
    flow = args.root / "data/flow" / params.dataset.name
    packs = flow if stream.inputs.modality == "flow" else args.root / "data/frames" / flow.name
    keys = {k: KeyFrames(every=k, packs=packs, flow=flow) for k in args.every}
    with seeding.reproducible(args.threads):
        found = times(stream, clips, keys, args.rounds)
        if not args.backbone:
            found["quality"] = quality(stream, clips, keys, args.root / "data/truth" / flow.name)
    found |= {"row": args.row, "backbone": args.backbone or params.row(args.row).network.backbone,
              "device": device_name(stream.device), "threads": args.threads,
              "num_clips": len(clips), "num_frames": sum(c.num_frames for c in clips),
              "input": list(full_frames(clips[0], stream.inputs, [0]).shape)}  # fmt: skip
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    show(found)


def setting(params: Params, args: argparse.Namespace) -> tuple[list[Clip], Stream]:
    """Training clips with packs, evenly drawn, and the network that explains them."""
    row, data, split = params.row(args.row), params.dataset.name, params.splits.ids[0]
    folder = {"rgb": "frames", "flow": "flow"}[row.input.modality]
    clips, classes = load_clips(
        args.root / "data/manifests" / data,
        args.root / "data/splits" / data / f"{split}.csv",
        args.root / "data" / folder / data,
    )
    train = [clip for clip in clips if clip.subset == "train"]
    chosen = [train[i] for i in extraction.evenly(len(train), args.clips)]
    if not args.backbone:
        checkpoint = args.root / "checkpoints" / data / f"{args.row}-{split}"
        return chosen, extraction.load_stream(row, len(classes), checkpoint)
    layers = (gradcam_layer(args.backbone),)
    size = {"resize_px": args.size, "crop_px": args.size} if args.size else {}
    network = dataclasses.replace(row.network, backbone=args.backbone, target_layers=layers)
    row = dataclasses.replace(row, network=network, input=dataclasses.replace(row.input, **size))
    torch.manual_seed(0)
    built = networks.build(two_stream, row, len(classes)).eval()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return chosen, Stream(built.to(device), layers, row.input, row.network.map_channel)


def device_name(device: torch.device) -> str:
    """What it runs on; all of it in 32 bits, on a GPU with TF32 where torch allows it."""
    if device.type != "cuda":
        return str(device)
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    name = torch.cuda.get_device_name()
    return f"{name}, torch {torch.__version__}, TF32 (matmul, cuDNN): {tf32}"


def gradcam_layer(backbone: str) -> str:
    """The last block of a backbone."""
    from flowsight.nn.blocks import LAST_BLOCKS

    return LAST_BLOCKS[backbone][-1]


def plain(stream: Stream, clip: Clip) -> Maps:
    """Grad-CAM as one writes it first: a frame at a time, `backward()` through everything."""
    kept: dict[str, Tensor] = {}

    def keep(module: Any, args: Any, output: Tensor) -> Tensor:
        output.retain_grad()
        kept["feature"] = output
        return output.clone()  # the next module may work in place

    (layer,) = stream.layers
    handle = stream.network.get_submodule(layer).register_forward_hook(keep)
    maps = []
    for index in range(clip.num_frames):
        stream.network.zero_grad()
        stream.network(read(stream, clip, index))[0, clip.label].backward()
        feature, gradient = kept["feature"], kept["feature"].grad
        assert gradient is not None
        weights = gradient.mean(dim=(2, 3), keepdim=True)
        maps.append(F.relu((weights * feature).sum(dim=1)).detach().cpu())
    handle.remove()
    stream.network.zero_grad()
    return gradcam.normalise(torch.cat(maps)).numpy()


def captums(stream: Stream, clip: Clip) -> Maps:
    """captum's LayerGradCam, a frame at a time."""
    from captum.attr import LayerGradCam

    (layer,) = stream.layers
    tool = LayerGradCam(stream.network, stream.network.get_submodule(layer))
    maps = []
    for index in range(clip.num_frames):
        found = tool.attribute(read(stream, clip, index), clip.label, relu_attributions=True)
        maps.append(found.detach()[:, 0].cpu())
    return gradcam.normalise(torch.cat(maps)).numpy()


def ours(stream: Stream, keys: KeyFrames, clip: Clip) -> Maps:
    """What the stages do, less writing."""
    maps = []
    for _, x in extraction.read_batches(stream, clip, keys.indices(clip.num_frames)):
        classes = torch.full((len(x),), clip.label, device=x.device)
        maps.append(gradcam.grad_cam(stream.network, x, classes, stream.layers).cpu())
    return keys.fill(torch.cat(maps).numpy(), clip.num_frames, clip.pack)


def read(stream: Stream, clip: Clip, index: int) -> Tensor:
    """One frame's input, as a batch of one."""
    x = full_frames(clip, stream.inputs, [index], map_channel=stream.map_channel)
    return x.to(stream.device)


def times(
    stream: Stream, clips: Sequence[Clip], keys: dict[int, KeyFrames], rounds: int
) -> dict[str, Any]:
    """Seconds of each way over all clips, and how much faster than the plain one."""
    ways: dict[str, Method] = {"plain": lambda clip: plain(stream, clip)}
    try:
        import captum  # noqa: F401  a benchmark's peer, not a requirement

        ways["captum"] = lambda clip: captums(stream, clip)
    except ImportError:
        pass
    ways["batched"] = lambda clip: ours(stream, EVERY_FRAME, clip)
    for every, frames in keys.items():
        ways[f"every {every}"] = lambda clip, frames=frames: ours(stream, frames, clip)
    found: dict[str, float] = {}
    for _ in range(rounds):  # the ways in turn, so that a busy machine hits all of them
        for name, way in ways.items():
            sec = seconds(way, clips)
            found[name] = min(found.get(name, sec), sec)
    difference = max(float(np.abs(ways["batched"](c) - ways["plain"](c)).max()) for c in clips[:2])
    ratios = {name: found["plain"] / sec for name, sec in found.items()}
    return {"seconds": found, "times_faster": ratios, "largest_difference": difference}


def seconds(way: Method, clips: Sequence[Clip]) -> float:
    """Wall-clock of all clips."""
    start = time.perf_counter()
    for clip in clips:
        way(clip)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def quality(
    stream: Stream, clips: Sequence[Clip], keys: dict[int, KeyFrames], truth: Path
) -> dict[str, dict[str, dict[str, float]]]:
    """Each k and way of filling in, and own maps: agreement, scores on true masks."""
    index = read_truth_index(truth)
    own = {clip.clip_id: ours(stream, EVERY_FRAME, clip) for clip in clips}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for every, frames in keys.items():
        rows: dict[str, list[dict[str, float]]] = {}
        for clip in clips:
            masks = read_masks(index[clip.clip_id]) if clip.clip_id in index else None
            whole, chosen = own[clip.clip_id], list(frames.indices(clip.num_frames))
            fields = read_fields(frames.flow / clip.pack.relative_to(frames.packs), clip.num_frames)
            nearest = [min(chosen, key=lambda k, t=t: abs(k - t)) for t in range(clip.num_frames)]
            ways = {
                "own": whole,
                "carried": between(whole[chosen], chosen, fields),
                "mixed": between(whole[chosen], chosen, None),
                "nearest": whole[nearest],
            }
            others = [t for t in range(clip.num_frames) if t not in chosen]
            for name, maps in ways.items():
                part = None if masks is None else masks[others]
                rows.setdefault(name, []).append(scores(whole[others], maps[others], part))
        found[f"every {every}"] = {
            name: {key: float(np.nanmean([row[key] for row in own])) for key in own[0]}
            for name, own in rows.items()
        }
    return found


def scores(own: Maps, maps: Maps, masks: np.ndarray | None) -> dict[str, float]:
    """Agreement with the frames' own maps, and scores on their true masks."""
    pairs = [(a.ravel(), b.ravel()) for a, b in zip(own, maps, strict=True) if a.any() and b.any()]
    strong = own >= 0.5
    found = {
        "correlation": float(np.mean([np.corrcoef(*pair)[0, 1] for pair in pairs] or [np.nan])),
        "iou_with_own": float(np.nanmean(localization.iou(maps, strong))),
    }
    measured = None if masks is None else measure((maps * 255).round().astype(np.uint8), masks)
    values = [np.nan] * 4 if measured is None else measured[1:].tolist()
    names = ("pointing_game", "energy_in_mask", "iou", "chance")
    return found | dict(zip(names, values, strict=True))


def show(found: dict[str, Any]) -> None:
    """Print the tables."""
    print(f"{found['backbone']} on {found['device']}, input {tuple(found['input'])}, "
          f"{found['num_frames']} frames of {found['num_clips']} clips")  # fmt: skip
    for name, sec in found["seconds"].items():
        ratio = found["times_faster"][name]
        print(f"  {name:10} {1000 * sec / found['num_frames']:8.2f} ms a frame  {ratio:6.2f} x")
    print(f"  largest difference of batched and plain maps: {found['largest_difference']:.1e}")
    for every, ways in found.get("quality", {}).items():
        print(f"{every}:")
        for name, row in ways.items():
            print(f"  {name:8}" + "".join(f"  {key} {value:.3f}" for key, value in row.items()))


if __name__ == "__main__":
    main()
