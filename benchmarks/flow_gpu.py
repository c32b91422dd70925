"""TV-L1 on a GPU: frames per second, and agreement with the torch reference.

    python benchmarks/flow_gpu.py [VIDEO ...] [--size 340 256] [--batches 64 128] [--sweep]
        [--json build/benchmarks/flow_gpu.json]

Frames come from the videos, or without any from moving noise. Times are medians of whole batches
on the device (frames and flow stay there); `with copies` moves uint8 frames in and float32 flow
out. Gpx-it/s counts the pixels of every iteration that a frame needed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from flowsight.flow import tvl1_gpu, tvl1_torch  # noqa: E402
from flowsight.flow.quantize import quantize  # noqa: E402
from flowsight.flow.tvl1_launch import Launch  # noqa: E402
from flowsight.flow.tvl1_numbers import PRESETS, read_numbers  # noqa: E402

ROUNDS = 5
BOUND_PX = 20
TILES = ((4, 64), (8, 32), (8, 64), (16, 32), (16, 64), (4, 128), (8, 128), (1, 256), (2, 128))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", nargs="*", type=Path)
    parser.add_argument("--size", nargs=2, type=int, default=(340, 256), metavar=("W", "H"))
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--check", type=int, default=4, help="frames of a preset compared")
    parser.add_argument("--sweep", action="store_true", help="time other tiles, groups, rounding")
    parser.add_argument("--json", type=Path, default=ROOT / "build/benchmarks/flow_gpu.json")
    args = parser.parse_args()
    if not tvl1_gpu.available():
        sys.exit("flow_gpu: expected a GPU and triton, found none")
    previous, following = frame_pairs(args.videos, tuple(args.size), max(args.batches))
    result: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "size": list(args.size),
        "presets": [
            attempt(preset, batch, previous, following, args.check if number == 0 else 0)
            for preset in sorted(PRESETS)
            for number, batch in enumerate(args.batches)
        ],
    }
    if args.sweep:
        result["sweep"] = sweep(previous, following, max(args.batches))
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(result, indent=2) + "\n")
    failed = [row["preset"] for row in result["presets"] if "error" in row]
    if failed:
        sys.exit(f"flow_gpu: presets that failed, reasons above: {', '.join(sorted(set(failed)))}")


def frame_pairs(
    videos: list[Path], size: tuple[int, int], num: int
) -> tuple[np.ndarray, np.ndarray]:
    """So many consecutive grey pairs (N, H, W) uint8, shared out over the videos, or noise."""
    if not videos:
        return noise_pairs(size, num)
    share = -(-num // len(videos))
    pairs = [pair for video in videos for pair in video_pairs(video, size, share)][:num]
    if len(pairs) < num:
        sys.exit(f"flow_gpu: expected {num} pairs of frames in the videos, got {len(pairs)}")
    previous, following = (np.stack(side) for side in zip(*pairs, strict=True))
    return previous, following


def video_pairs(
    video: Path, size: tuple[int, int], num: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    reader = cv2.VideoCapture(str(video))
    frames: list[np.ndarray] = []
    while len(frames) <= num:
        ok, frame = reader.read()
        if not ok:
            break
        frames.append(cv2.cvtColor(cv2.resize(frame, size), cv2.COLOR_BGR2GRAY))
    return list(pairwise(frames))


def noise_pairs(size: tuple[int, int], num: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth noise, each pair moved by up to 8 px."""
    rng = np.random.default_rng(0)
    width, height = size
    texture = cv2.GaussianBlur(rng.normal(size=(height + 64, width + 64)), (0, 0), 3)
    texture = np.interp(texture, (texture.min(), texture.max()), (0, 255)).astype(np.uint8)
    places = rng.integers(16, 32, (num, 2))
    moved = places + rng.integers(-8, 9, (num, 2))
    first, second = (
        np.stack([texture[y : y + height, x : x + width] for y, x in corners])
        for corners in (places, moved)
    )
    return first, second


def attempt(preset: str, batch: int, *given: Any) -> dict[str, object]:
    """`measure`; what fails is told with its reason and does not take the others along."""
    try:
        return measure(preset, batch, *given)
    except Exception as error:
        traceback.print_exc()
        return {"preset": preset, "batch": batch, "error": str(error)[:500]}


def measure(
    preset: str, batch: int, previous: np.ndarray, following: np.ndarray, num_checked: int
) -> dict[str, object]:
    """Speed and agreement of one preset."""
    numbers = PRESETS[preset]
    torch.cuda.reset_peak_memory_stats()
    pair = previous[:batch], following[:batch]
    resident = [torch.from_numpy(frames).cuda() for frames in pair]
    sec = timed(lambda: tvl1_gpu.solve(*resident, numbers=numbers, batch_size=batch))
    copies_sec = timed(lambda: tvl1_gpu.solve(*pair, numbers=numbers, batch_size=batch))
    height, width = previous.shape[1:]
    known = read_numbers(numbers)
    work, _ = tvl1_gpu.prepare(
        height, width, batch, known, tvl1_gpu.DEFAULT_LAUNCH, str(resident[0].device)
    )
    row: dict[str, object] = {
        "preset": preset,
        "batch": batch,
        "fps": batch / sec,
        "fps_with_copies": batch / copies_sec,
        "gpx_iterations_per_sec": float(work.total.sum()) / sec / 1e9,
        "mpx_iterations_per_frame": float(work.total.sum()) / batch / 1e6,
        "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30,
    }
    if num_checked:
        row |= agreement([frames[:num_checked] for frames in pair], numbers)
    print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    tvl1_gpu.release()
    return row


def agreement(pair: list[np.ndarray], numbers: dict[str, float | int | str]) -> dict[str, float]:
    """Of the GPU's flow with the torch reference's on the CPU."""
    flow = tvl1_gpu.solve(*pair, numbers=numbers)
    reference = tvl1_torch.solve(*pair, numbers=numbers)
    ours, expected = (quantize(np.asarray(f), BOUND_PX).astype(int) for f in (flow, reference))
    return {
        "within_one_level": float(np.mean(np.abs(ours - expected) <= 1)),
        "mean_difference_px": float(np.abs(flow - reference).mean()),
        "largest_difference_px": float(np.abs(flow - reference).max()),
        "equal": float(np.mean(flow == reference)),
    }


def sweep(previous: np.ndarray, following: np.ndarray, batch: int) -> list[dict[str, object]]:
    """The `opencv` preset with other tiles, group sizes and rounding."""
    launches = [Launch(tile=tile, num_warps=warps) for tile in TILES for warps in (4, 8)]
    launches += [Launch(exact=False), Launch(graphs=False)]
    launches += [Launch(group=group, look_behind=k) for group in (3, 10) for k in (1, 2)]
    resident = [torch.from_numpy(f[:batch]).cuda() for f in (previous, following)]
    rows = []
    for launch in launches:
        solve = partial(tvl1_gpu.solve, numbers={}, batch_size=batch, launch=launch)
        rows.append({"launch": str(launch), "fps": batch / timed(partial(solve, *resident))})
        print(rows[-1], flush=True)
        tvl1_gpu.release()
    return rows


def timed(call: Callable[[], object]) -> float:
    """Median seconds of a call on the device, after one for compiling."""
    call()
    seconds = []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
