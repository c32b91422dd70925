"""Background subtraction: frames/s beside loops over cells and OpenCV's MOG2, memory over length.

The loops are the same network as one would write it down: `LSTMCell` step by step over frames,
batched over pixels, `GRUCell` step by step over columns and rows, batched over lines, each of the
four directions by itself. They get our weights (peepholes zero, for `LSTMCell` has none) and must
give our numbers before anything is timed. All variants are timed in turn in every round, in one
process, on the same frames; medians are of CPU time (of wall time on a GPU), and ratios are formed
round by round, so that a busy machine shows as noise and not as somebody's advantage.

    python benchmarks/background.py [--size 320x240] [--crop 48] [--rounds 3] [--threads 1]
        [--json build/benchmarks/background.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import torch
from torch import Tensor, nn

from flowsight.systems.background import network as background

ROOT = Path(__file__).resolve().parents[1]
OURS, LOOPS, MOG2 = "ours", "loops over cells", "OpenCV MOG2"
LENGTHS = (2, 20, 200)
"""Frames after which memory is looked at."""


class LoopLayer(nn.Module):
    """LSTMCell over frames, GRUCell over columns and rows, 1x1 convolution, ReLU."""

    def __init__(self, layer: background.RecurrentLayer) -> None:
        super().__init__()
        units, channels = layer.lstm.weight_hh.shape[1], layer.lstm.weight_ih.shape[1]
        self.lstm = nn.LSTMCell(channels, units)
        self.lstm.load_state_dict(
            {
                "weight_ih": layer.lstm.weight_ih,
                "weight_hh": layer.lstm.weight_hh,
                "bias_ih": layer.lstm.bias,
                "bias_hh": torch.zeros_like(layer.lstm.bias),
            }
        )
        gru_units = layer.gru.weight_hh.shape[1]
        self.gru = nn.GRUCell(units, gru_units)
        self.gru.load_state_dict(
            {
                "weight_ih": layer.gru.weight_ih,
                "weight_hh": layer.gru.weight_hh,
                "bias_ih": layer.gru.bias_ih,
                "bias_hh": torch.cat(
                    [layer.gru.bias_hn.new_zeros(2 * gru_units), layer.gru.bias_hn]
                ),
            }
        )
        self.conv = nn.Linear(4 * gru_units, layer.conv.out_features)
        self.conv.load_state_dict(layer.conv.state_dict())

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Any]:
        """(T, B, H, W, C) -> (T, B, H, W, K), and the last state."""
        shape = x.shape[:4]
        outputs = []
        for frame in x:
            state = self.lstm(frame.flatten(0, 2), state)
            outputs.append(state[0])
        maps = torch.stack(outputs).view(*shape, -1).flatten(0, 1)  # (M, H, W, U)
        turned = maps.transpose(1, 2)
        swept = [
            self.sweep(maps),
            self.sweep(maps.flip(2)).flip(2),
            self.sweep(turned).transpose(1, 2),
            self.sweep(turned.flip(2)).flip(2).transpose(1, 2),
        ]
        return self.conv(torch.cat(swept, dim=3)).relu().view(*shape, -1), state

    def sweep(self, maps: Tensor) -> Tensor:
        """From left to right: (M, H, W, U) -> (M, H, W, V)."""
        h, outputs = None, []
        for column in maps.unbind(dim=2):
            h = self.gru(column.flatten(0, 1), h)
            outputs.append(h.view(*maps.shape[:2], -1))
        return torch.stack(outputs, dim=2)


class Loops(nn.Module):
    """The whole network of loops, with our weights."""

    def __init__(self, network: background.BackgroundNetwork) -> None:
        super().__init__()
        self.layers = nn.ModuleList(LoopLayer(layer) for layer in network.layers)
        self.dense = network.dense

    def forward(self, frames: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """As `BackgroundNetwork`: (B, C, T, H, W) -> logits (B, T, H, W)."""
        x, states = frames.permute(2, 0, 3, 4, 1), []
        for index, layer in enumerate(self.layers):
            x, after = layer(x, state[index] if state else None)
            states.append(after)
        return self.dense(x)[..., 0].transpose(0, 1), states


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="320x240", help="of a frame at inference")
    parser.add_argument("--crop", type=int, default=48, help="side of the training crops, px")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=ROOT / "build/benchmarks/background.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    width, height = (int(side) for side in args.size.split("x"))
    network, loops = pair(device)
    report = {
        "machine": machine(device),
        "size": [width, height],
        "threads": args.threads,
        "difference": check(network, loops, device),
        "inference": timed(inference(network, loops, (height, width), device), args.rounds, device),
        "training": timed(training(network, loops, args.crop, device), args.rounds, device),
        "crop": args.crop,
        "memory_mb": memory(network, (height // 2, width // 2), device),
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")
    show(report)


def machine(device: torch.device) -> str:
    """What it ran on, and how busy it was at the start."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def pair(device: torch.device) -> tuple[background.BackgroundNetwork, Loops]:
    """The paper's network without dropout, and the loops with its weights."""
    torch.manual_seed(0)
    network = background.build(dropout=0.0)
    return network.to(device), Loops(network).to(device)


def check(network: nn.Module, loops: nn.Module, device: torch.device) -> float:
    """Largest difference of the logits; must be small."""
    frames = torch.randn(2, 1, 3, 20, 24, device=device)
    with torch.no_grad():
        difference = float((network(frames)[0] - loops(frames)[0]).abs().max())
    if difference > 1e-4:
        raise SystemExit(f"the loops give other numbers: {difference:.2g}")
    return difference


Runs = dict[str, tuple[Callable[[], object], float]]
"""Name -> what is timed, and how many frames it is."""


def inference(
    network: nn.Module, loops: nn.Module, shape: tuple[int, int], device: torch.device
) -> Runs:
    """A frame at full size with the state carried on."""
    frames = torch.randn(1, 1, 1, *shape, device=device)
    pictures = np.random.default_rng(0).integers(0, 256, (8, *shape, 3)).astype(np.uint8)
    model = cv2.createBackgroundSubtractorMOG2()

    def run(which: nn.Module) -> Callable[[], object]:
        with torch.inference_mode():
            _, state = which(frames)

        def step() -> object:
            with torch.inference_mode():
                return which(frames, state)

        return step

    def peer() -> None:
        for picture in pictures:
            model.apply(picture)

    return {OURS: (run(network), 1), LOOPS: (run(loops), 1), MOG2: (peer, len(pictures))}


def training(network: nn.Module, loops: nn.Module, crop: int, device: torch.device) -> Runs:
    """Forward and backward of a chunk of 6 frames of 2 crops."""
    frames = torch.randn(2, 1, 6, crop, crop, device=device)

    def run(which: nn.Module) -> Callable[[], object]:
        def step() -> None:
            for parameter in which.parameters():
                parameter.grad = None
            which(frames)[0].square().mean().backward()

        return step

    return {OURS: (run(network), 12), LOOPS: (run(loops), 12)}


def timed(runs: Runs, rounds: int, device: torch.device) -> dict[str, Any]:
    """Frames/s of each, and ours over the loops', round by round."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, (run, frames) in runs.items():
            took = clock(run, device)
            if number:  # the first round warms up
                seconds[name].append(took / frames)
    ratios = [slow / fast for slow, fast in zip(seconds[LOOPS], seconds[OURS], strict=True)]
    return {
        "frames_per_sec": {name: 1 / statistics.median(took) for name, took in seconds.items()},
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }


def clock(run: Callable[[], object], device: torch.device) -> float:
    """Seconds: CPU time, or wall time on a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        return time.perf_counter() - start
    start = time.process_time()
    run()
    return time.process_time() - start


def memory(
    network: background.BackgroundNetwork, shape: tuple[int, int], device: torch.device
) -> dict[str, float]:
    """Resident memory of the process (peak of the GPU) after so many frames, in 10^6 bytes."""

    def camera() -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(0)
        while True:
            yield torch.randn(1, *shape, generator=generator).to(device)

    found = {}
    for number, _ in enumerate(background.probabilities(network.eval(), camera()), start=1):
        if number in LENGTHS:
            used = (
                torch.cuda.max_memory_allocated()
                if device.type == "cuda"
                else psutil.Process().memory_info().rss
            )
            found[str(number)] = used / 1e6
        if number == LENGTHS[-1]:
            break
    return found


def show(report: dict[str, Any]) -> None:
    """Print tables."""
    width, height = report["size"]
    print(f"{report['machine']}, {report['threads']} thread(s)")
    print(f"the loops give the same logits to {report['difference']:.1e}")
    for kind, what in (
        ("inference", f"inference at {width}x{height}"),
        ("training", f"training on crops of {report['crop']} px"),
    ):
        print(f"\n{what}: frames/s")
        for name, speed in report[kind]["frames_per_sec"].items():
            print(f"  {name:18} {speed:8.2f}")
        ratios = ", ".join(f"{ratio:.2f}" for ratio in report[kind]["ratios"])
        print(f"  ours / loops       {report[kind]['ratio']:8.2f}   (rounds: {ratios})")
    print(f"\nmemory after so many frames of {width // 2}x{height // 2}, MB")
    for length, used in report["memory_mb"].items():
        print(f"  {length:>6} {used:8.0f}")


if __name__ == "__main__":
    main()
