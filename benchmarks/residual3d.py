"""Networks over clips: parameters, FLOPs, and clips/s beside torchvision's r3d_18.

Every variant is timed in turn in every round, in one process, on the same random clips; medians are
of CPU time (of time by the device's own events on a GPU) and ratios are formed round by round, so
that a busy machine shows as noise and not as somebody's advantage. `r3d_18` is torchvision's.

    python benchmarks/residual3d.py [--size 8x64 | 16x112] [--batch 2] [--rounds 5] [--threads 1]
        [--no-compile]
        [--json build/benchmarks/residual3d.json]

On a GPU, mixed precision, channels last, `torch.compile` and the peak of memory are measured too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.video import r3d_18

from flowsight.systems.residual3d import network as residual3d

ROOT = Path(__file__).resolve().parents[1]
NUM_CLASSES = 101
PEER = "torchvision r3d_18"
SWITCHES = {"order": "channel_first", "reduction": 16}
KINDS: dict[str, dict[str, Any]] = {
    "": {"channel": False, "spatial": False},
    "+ channel": {"channel": True, "spatial": False},
    "+ spatial 7x7": {"channel": False, "spatial": True, "kernel": "7x7"},
    "+ spatial 7x7x7": {"channel": False, "spatial": True, "kernel": "7x7x7"},
    "+ both 7x7": {"channel": True, "spatial": True, "kernel": "7x7"},
    "+ both 7x7x7": {"channel": True, "spatial": True, "kernel": "7x7x7"},
}
TIMED = (PEER, "resnet3d_18", "resnet3d_18 + both 7x7", "resnet3d_18 + both 7x7x7")
"""Of the networks in the table of sizes, those that are timed."""

Step = Callable[[], None]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="8x64", help="frames x px")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--json", type=Path, default=ROOT / "build/benchmarks/residual3d.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    frames, side = (int(part) for part in args.size.split("x"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    report: dict[str, Any] = {
        "size": [frames, side],
        "batch": args.batch,
        "rounds": args.rounds,
        "threads": args.threads,
        "machine": machine(device),
        "networks": sizes(frames, side),
        "sizes_at_16x112": sizes(16, 112),
        "speed": speeds(device, (args.batch, 3, frames, side, side), args),
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")
    show(report)


def machine(device: torch.device) -> str:
    """What it ran on, and how busy it was at the start."""
    if device.type == "cuda":
        tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        name = torch.cuda.get_device_name()
        return f"{name}, torch {torch.__version__}, TF32 (matmul, cuDNN): {tf32}, mixed: bf16"
    return f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def create(name: str) -> nn.Module:
    """A network by its name in the tables."""
    if name == PEER:
        return r3d_18(num_classes=NUM_CLASSES)
    backbone, _, kind = name.partition(" ")
    return residual3d.build(
        backbone=backbone,
        modality="rgb",
        num_classes=NUM_CLASSES,
        attention=residual3d.block_attention(**SWITCHES, **KINDS[kind]),
    )


def names() -> list[str]:
    """Every network of the table of sizes."""
    found = [PEER]
    for backbone in residual3d.BACKBONES:
        kinds = ("", "+ both 7x7", "+ both 7x7x7") if not backbone.startswith("c3d") else ("",)
        found += [f"{backbone} {kind}".strip() for kind in kinds]
    return found


def sizes(frames: int, side: int) -> dict[str, dict[str, float]]:
    """Parameters and multiply-accumulates of one clip, without computing anything."""
    found = {}
    for name in names():
        with torch.device("meta"):
            network = create(name).eval()
            clip = torch.empty(1, 3, frames, side, side)
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            network(clip)
        found[name] = {
            "parameters": sum(p.numel() for p in network.parameters()),
            "gmacs": counter.get_total_flops() / 2e9,
        }
    return found


def speeds(
    device: torch.device, shape: tuple[int, ...], args: argparse.Namespace
) -> dict[str, Any]:
    """Clips/s of every timed variant, forward and training, and ratios to the peer's."""
    clip, label = torch.randn(shape, device=device), torch.arange(shape[0], device=device)
    variants = {name: {"network": name} for name in TIMED}
    variants[f"{TIMED[1]}, channels last"] = {"network": TIMED[1], "channels_last": True}
    if device.type == "cuda":
        for name in (PEER, TIMED[1], TIMED[-1]):
            fast = {"network": name, "channels_last": True, "mixed": True}
            variants[f"{name}, mixed, channels last"] = fast
            if not args.no_compile:
                variants[f"{name}, mixed, channels last, compiled"] = {**fast, "compiled": True}
    steps = {name: variant(clip, label, **options) for name, options in variants.items()}
    found: dict[str, Any] = {}
    for number, mode in enumerate(("forward", "training")):
        times: dict[str, list[float]] = {name: [] for name in steps}
        for pair in steps.values():
            pair[number]()  # warm: memory, plans, compilation
        for turn in range(args.rounds):
            # in turn, and from another one each round: none has the warmest cache each time
            for name in list(steps)[turn % len(steps) :] + list(steps)[: turn % len(steps)]:
                times[name].append(timed(steps[name][number], device))
        for name in steps:
            ratios = [base / own for base, own in zip(times[PEER], times[name], strict=True)]
            entry = found.setdefault(name, {})
            entry[mode] = {
                "clips_per_sec": shape[0] / statistics.median(times[name]),
                "against_peer": statistics.median(ratios),
                "lowest": min(ratios),
                "highest": max(ratios),
            }
    if device.type == "cuda":
        for name, pair in steps.items():
            torch.cuda.reset_peak_memory_stats()
            pair[1]()
            found[name]["training_peak_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return found


def variant(
    clip: Tensor,
    label: Tensor,
    *,
    network: str,
    channels_last: bool = False,
    mixed: bool = False,
    compiled: bool = False,
) -> tuple[Step, Step]:
    """One forward pass and one training step (forward, backward, SGD) of a network."""
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    module = create(network).to(clip.device).to(memory_format=layout)
    x = clip.contiguous(memory_format=layout)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9, nesterov=True)
    run: Callable[[Tensor], Tensor] = torch.compile(module) if compiled else module

    def autocast() -> Any:
        return torch.autocast(clip.device.type, torch.bfloat16, enabled=mixed)

    def forward() -> None:
        module.eval()
        with torch.inference_mode(), autocast():
            run(x)

    def training() -> None:
        module.train()
        optimizer.zero_grad()
        with autocast():
            loss = F.cross_entropy(run(x).float(), label)
        loss.backward()
        optimizer.step()

    return forward, training


def timed(step: Step, device: torch.device) -> float:
    """Seconds of one step: of the CPU's time, or of the GPU's by its events."""
    if device.type != "cuda":
        start = time.process_time()
        step()
        return time.process_time() - start
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    step()
    last.record()
    torch.cuda.synchronize()
    return float(first.elapsed_time(last)) / 1000


def show(report: dict[str, Any]) -> None:
    """Both tables, for people."""
    print(f"{report['machine']}, {report['threads']} threads")
    print(f"{'':34} {'parameters':>11} {'GMACs':>8} {'at 16x112':>10}")
    for name, row in report["networks"].items():
        at_full = report["sizes_at_16x112"][name]["gmacs"]
        print(f"{name:34} {row['parameters']:11,} {row['gmacs']:8.3f} {at_full:10.2f}")
    frames, side = report["size"]
    print(f"\n{report['batch']} clips of {frames} x {side} px: clips/s (times {PEER}, range)")
    for name, row in report["speed"].items():
        cells = [
            f"{mode} {e['clips_per_sec']:7.2f} ({e['against_peer']:.3f}, "
            f"{e['lowest']:.2f}-{e['highest']:.2f})"
            for mode, e in row.items()
            if isinstance(e, dict)
        ]
        memory = row.get("training_peak_mb")
        cells += [] if memory is None else [f"{memory:.0f} MB"]
        print(f"{name:50} {'   '.join(cells)}")


if __name__ == "__main__":
    main()
