"""Predicting single videos: latency, its parts, and a batch, from file to scores.

Real clips are read from $FLOWSIGHT_SHARED/data (default ../shared/data). Wall-clock time, medians.
`parts` are the same pieces of work on their own: decoding once, flow of the fields that the views
look at, JPEG of what is stored, and the networks on a clip in memory. `all_flow_sec` is the flow of
every field, which a prediction without attention maps leaves out where the views need few. A system
that sees frames only has no flow among its parts.

    python benchmarks/serving.py [--system two_stream] [--model FOLDER] [--clips 4] [--rounds 3]
        [--json build/benchmarks/serving.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flowsight import contract
from flowsight.flow import api
from flowsight.params import config
from flowsight.serving import memory
from flowsight.serving.bundle import Bundle, load_bundle, write_bundle
from flowsight.serving.memory import Needs
from flowsight.serving.prediction import predict_clip, predict_video, predict_videos
from flowsight.serving.result import Prediction
from flowsight.video import pack
from flowsight.video.decode import decode
from flowsight.video.workers import num_workers

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("FLOWSIGHT_SHARED", ROOT.parent / "shared")) / "data"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    first = next(iter(config.load(ROOT / "params.yaml").systems))
    parser.add_argument("--system", default=first, choices=contract.names())
    parser.add_argument("--model", type=Path, help="a bundle; default: the working tree's")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=ROOT / "build/benchmarks/serving.json")
    args = parser.parse_args()
    clips = sorted((SHARED / "ucf101/videos").glob("*/*.avi"))
    chosen = clips[:: max(1, len(clips) // args.clips)][: args.clips]
    if not chosen:
        raise SystemExit(f"no clips in {SHARED / 'ucf101/videos'}; set FLOWSIGHT_SHARED")
    with tempfile.TemporaryDirectory() as scratch:
        if args.model is None:
            args.model = Path(scratch) / "bundle"
            write_bundle(args.system, args.model, root=ROOT, check_lock=False)
        start = time.perf_counter()
        bundle = load_bundle(args.model)
        load_sec = time.perf_counter() - start
    report = measure(bundle, chosen, args.rounds)
    report["model"] = {
        key: bundle.description[key] for key in ("system", "recipe", "dataset", "threads")
    }
    report["model"]["load_sec"] = round(load_sec, 2)
    report["machine"] = (
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")
    show(report)


def measure(bundle: Bundle, clips: list[Path], rounds: int) -> dict[str, Any]:
    """Everything, with each way of working in turn in every round."""
    predict_video(bundle, clips[0])  # warm: libraries, memory
    rows = [one(bundle, clip, rounds) for clip in clips]
    batches, singles = [], []
    for _ in range(rounds):
        batches.append(timed(lambda: list(predict_videos(bundle, clips))))
        singles.append(timed(lambda: [predict_video(bundle, clip) for clip in clips]))
    video_sec = sum(row["video_sec"] for row in rows)
    batch, single = statistics.median(batches), statistics.median(singles)
    return {
        "clips": rows,
        "batch": {
            "num_videos": len(clips),
            "sec": round(batch, 3),
            "to_one_by_one": round(batch / single, 3),
            "videos_per_sec": round(len(clips) / batch, 3),
            "sec_per_sec_of_video": round(batch / video_sec, 3),
        },
        "to_sum_of_parts": round(statistics.median(row["to_sum_of_parts"] for row in rows), 3),
    }


def one(bundle: Bundle, clip: Path, rounds: int) -> dict[str, Any]:
    """Latency of one video and its parts."""
    whole: list[float] = []
    parts: dict[str, list[float]] = {}
    found: Prediction | None = None
    for _ in range(rounds):
        start = time.perf_counter()
        found = predict_video(bundle, clip)
        whole.append(time.perf_counter() - start)
        for name, work in pieces(bundle, clip).items():
            parts.setdefault(name, []).append(timed(work))
    assert found is not None
    latency = statistics.median(whole)
    middle = {name: statistics.median(values) for name, values in parts.items()}
    all_flow = middle.pop("all_flow", None)
    return {
        "clip": clip.stem,
        "num_frames": found.num_frames,
        "video_sec": round(found.duration_sec, 2),
        "sec": round(latency, 3),
        "sec_per_sec_of_video": round(latency / found.duration_sec, 3),
        "all_flow_sec": None if all_flow is None else round(all_flow, 3),
        "parts": {name: round(sec, 3) for name, sec in middle.items()},
        "to_sum_of_parts": round(latency / sum(middle.values()), 3),
    }


def pieces(bundle: Bundle, clip: Path) -> dict[str, Callable[[], Any]]:
    """The parts, each on its own, with what it needs at hand."""
    frames = list(decode(clip, bundle.frames.size))
    needs = bundle.system.needs(bundle, attention=False)
    loaded = memory.load(clip, frames=bundle.frames, flow=bundle.flow, needs=needs)

    def encode() -> None:
        for frame in frames:
            pack.encode_jpeg(frame, bundle.frames.quality)

    parts: dict[str, Callable[[], Any]] = {"decode": lambda: list(decode(clip, bundle.frames.size))}
    if needs.flow:
        parts |= flow_pieces(bundle, clip, frames, needs, encode)
    else:
        parts["jpeg"] = encode
    return {**parts, "networks": lambda: predict_clip(bundle, loaded)}


def flow_pieces(
    bundle: Bundle, clip: Path, frames: list[np.ndarray], needs: Needs, encode: Callable[[], None]
) -> dict[str, Callable[[], Any]]:
    """Flow of what is needed and of everything, and JPEG of frames and needed fields."""
    flow = bundle.flow
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    loaded = memory.load(clip, frames=bundle.frames, flow=flow)
    fields = pack.read_flow(loaded.flow, range(len(frames) - 1))  # type: ignore[arg-type]
    wanted = needs.fields(len(frames), loaded.fps) if needs.fields else range(len(frames) - 1)
    needed = sorted(wanted)
    chosen = {key: getattr(flow, key) for key in ("method", "preset", "backend")}

    def solve() -> None:
        following = np.stack([grey[index + 1] for index in needed])
        api.compute(np.stack([grey[index] for index in needed]), following, **chosen)

    def solve_all() -> None:
        levels = {"bound_px": flow.bound_px, "threads": num_workers()}
        list(api.compute_levels(iter(grey), **levels, **chosen))

    def encode_both() -> None:
        encode()
        for index in needed:
            for component in fields[index]:
                pack.encode_jpeg(component, flow.quality)

    return {"flow": solve, "all_flow": solve_all, "jpeg": encode_both}


def timed(work: Callable[[], Any]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def show(report: dict[str, Any]) -> None:
    """A table, then the whole as JSON."""
    names = list(report["clips"][0]["parts"])
    heads = "".join(f"{name:>10}" for name in names)
    print(f"{'clip':32} frames  video  latency  per s{heads}  to their sum  all flow")
    for row in report["clips"]:
        parts = "".join(f"{row['parts'][name]:10.3f}" for name in names)
        all_flow = "none" if row["all_flow_sec"] is None else f"{row['all_flow_sec']:.3f}"
        print(
            f"{row['clip'][:32]:32} {row['num_frames']:6}  {row['video_sec']:5.1f}  "
            f"{row['sec']:7.3f}  {row['sec_per_sec_of_video']:5.3f}{parts}  "
            f"{row['to_sum_of_parts']:12.2f}  {all_flow:>8}"
        )
    batch = report["batch"]
    per_sec = batch["sec_per_sec_of_video"]
    print(
        f"batch of {batch['num_videos']}: {batch['sec']:.2f} s, "
        f"{batch['to_one_by_one']:.2f} of one by one, {per_sec:.3f} s per second of video"
    )
    print(json.dumps(report))


if __name__ == "__main__":
    main()
