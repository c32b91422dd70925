"""The stage `flow` from end to end: videos to packs, frames a second, beside the sum of its parts.

Real clips are read from $FLOWSIGHT_SHARED/data (default ../shared/data). Wall-clock time, with the
processes of the stage; the parts are CPU time of one thread. OpenCV's row runs the same chain, with
the backend `opencv`, on the first frames of the same clips.

    python benchmarks/flow_stage.py [--clips 8] [--workers 2] [--rounds 3]
        [--presets opencv near fast cuda] [--opencv-frames 6]
        [--json build/benchmarks/flow_stage.json]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from flowsight import files
from flowsight.datasets.clips import flow
from flowsight.flow import api, tvl1_cpu
from flowsight.flow.tvl1_numbers import PRESETS
from flowsight.video import pack
from flowsight.video.decode import decode

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("FLOWSIGHT_SHARED", ROOT.parent / "shared")) / "data"
SETTINGS = {"method": "tvl1", "backend": "cpu", "bound_px": 20.0, "quality": 95, "size": None}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--presets", nargs="+", default=list(PRESETS), choices=list(PRESETS))
    parser.add_argument("--opencv-frames", type=int, default=6)
    parser.add_argument("--json", type=Path, default=ROOT / "build/benchmarks/flow_stage.json")
    args = parser.parse_args()
    os.environ["FLOWSIGHT_WORKERS"] = str(args.workers)
    clips = sorted((SHARED / "ucf101/videos").glob("*/*.avi"))
    chosen = clips[:: max(1, len(clips) // args.clips)][: args.clips]
    with tempfile.TemporaryDirectory() as folder:
        report = measure(chosen, Path(folder), args)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")
    print(json.dumps(report, indent=2))


def measure(clips: list[Path], folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Frames a second of the stage per preset, of its parts, and of the same chain with OpenCV."""
    source = make_shard(clips, folder / "shard")
    frames = sum(sum(1 for _ in decode(clip)) for clip in clips)
    report: dict[str, Any] = {"clips": len(clips), "frames": frames, "workers": args.workers}
    rates: dict[str, list[float]] = {preset: [] for preset in args.presets}
    per_cpu: dict[str, list[float]] = {preset: [] for preset in args.presets}
    for _, preset in itertools.product(range(args.rounds), args.presets):  # in turn
        before = cpu_seconds()
        seconds = timed(lambda preset=preset: run(source, folder / "out", preset=preset))
        rates[preset].append(frames / seconds)
        per_cpu[preset].append(frames / (cpu_seconds() - before))
    for key, found in (("frames_per_sec", rates), ("frames_per_cpu_sec", per_cpu)):
        report[key] = {p: round(statistics.median(r), 1) for p, r in found.items()}
    report["parts_ms_per_frame"] = parts(clips)
    report["same_frames"] = beside_opencv(clips, folder, args.opencv_frames)
    # of the largest worker
    report["peak_mib"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    return report


def make_shard(clips: list[Path], folder: Path) -> Path:
    """A shard folder of these videos."""
    rows = []
    for clip in clips:
        target = folder / "videos" / clip.parent.name / clip.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(clip, target)
        name = f"{clip.parent.name}/{clip.name}"
        rows.append((f"{clip.parent.name}/{clip.stem}", name, files.sha256(clip)))
    pd.DataFrame(rows, columns=["clip_id", "path", "sha256"]).to_csv(
        folder / "clips.csv", index=False
    )
    return folder


def run(source: Path, out: Path, **change: Any) -> None:
    """The stage."""
    flow.pack_flow(source, out, **(SETTINGS | change))


def cpu_seconds() -> float:
    """CPU time so far, of this process and those that have ended, start-up included."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def timed(action: Callable[[], None]) -> float:
    """Wall-clock seconds."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def parts(clips: list[Path]) -> dict[str, float]:
    """CPU ms a frame of decoding, flow and storing, one thread, 10 frames a clip."""
    cv2.setNumThreads(1)
    spent = dict.fromkeys(("decode", "flow", "jpeg_and_zip"), 0.0)
    count = 0
    for clip in clips:
        start = time.process_time()
        frames = list(itertools.islice(decode(clip), 11))
        spent["decode"] += (time.process_time() - start) * 10 / 11
        grey = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])
        start = time.process_time()
        levels = tvl1_cpu.solve_quantized(grey[:-1], grey[1:], bound_px=20.0, numbers={}, threads=1)
        spent["flow"] += time.process_time() - start
        start = time.process_time()
        with tempfile.TemporaryDirectory() as folder, pack.pack_writer(f"{folder}/x.zip") as add:
            for index, pair in enumerate(levels):
                for name, image in zip(pack.flow_names(index), pair, strict=True):
                    add(name, pack.encode_jpeg(image, 95))
        spent["jpeg_and_zip"] += time.process_time() - start
        count += len(levels)
    return {name: round(1e3 * seconds / count, 2) for name, seconds in spent.items()}


def beside_opencv(clips: list[Path], folder: Path, num: int) -> dict[str, Any]:
    """The whole chain on the same few frames of every clip, one thread each, in turn."""
    seconds: dict[str, float] = {"cpu": 0.0, "opencv": 0.0}
    for clip in clips:
        for backend in seconds:
            start = time.process_time()
            grey = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in decode(clip))
            wanted = itertools.islice(grey, num + 1)
            fields = api.compute_levels(
                wanted, method="tvl1", backend=backend, bound_px=20.0, threads=1
            )
            with pack.pack_writer(folder / "same.zip") as add:
                for index, pair in enumerate(fields):
                    for name, image in zip(pack.flow_names(index), pair, strict=True):
                        add(name, pack.encode_jpeg(image, 95))
            seconds[backend] += time.process_time() - start
    total = num * len(clips)
    rates = {name: round(total / value, 2) for name, value in seconds.items()}
    return {
        "pairs": total,
        "frames_per_cpu_sec": rates,
        "times_faster": round(seconds["opencv"] / seconds["cpu"], 1),
    }


if __name__ == "__main__":
    main()
