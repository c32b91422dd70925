"""TV-L1 on the CPU against OpenCV's: speed per core, agreement, end-point error.

Times are CPU time of one process with one thread, methods in turn, medians over rounds; quote the
ratios. "opencv" is our default, which gives OpenCV's own bits; "near" is the same solver, rounded
as is fastest. Real data is read from $FLOWSIGHT_SHARED/data (default ../shared/data).

    python benchmarks/flow.py [--pairs 6] [--rounds 3] [--every-clip] [--json FILE]

`--every-clip` takes pairs 2, 10 and 20 of every clip for the agreement, and 10 for the fixed
iterations (about 20 minutes more).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flowsight.flow import quantize, tvl1_cpu
from flowsight.flow.tvl1_numbers import PRESETS, read_numbers

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("FLOWSIGHT_SHARED", ROOT.parent / "shared")) / "data"
BOUND_PX = 20.0
FIXED = {"epsilon": 0.0, "inner_iterations": 10, "outer_iterations": 1}
NEAR = PRESETS["near"]
ONE_LEVEL = {**FIXED, "num_scales": 1, "num_warps": 1}

Pair = tuple[np.ndarray, np.ndarray]
Solver = Callable[[np.ndarray, np.ndarray], np.ndarray]


def opencv(numbers: Mapping[str, Any]) -> Solver:
    """OpenCV's DualTVL1OpticalFlow with these numbers; (2, H, W)."""
    n = read_numbers(numbers)

    def solve(previous: np.ndarray, following: np.ndarray) -> np.ndarray:
        solver = cv2.optflow.DualTVL1OpticalFlow.create(
            tau=n.tau,
            lambda_=n.lambda_,
            theta=n.theta,
            nscales=n.num_scales,
            warps=n.num_warps,
            epsilon=n.epsilon,
            innnerIterations=n.inner_iterations,
            outerIterations=n.outer_iterations,
            scaleStep=n.scale_step,
            medianFiltering=n.median_filtering,
        )
        return solver.calc(previous, following, None).transpose(2, 0, 1)

    return solve


def ours(numbers: Mapping[str, Any], simd: str | None = None) -> Solver:
    """Our C engine with these numbers; (2, H, W)."""

    def solve(previous: np.ndarray, following: np.ndarray) -> np.ndarray:
        pair = previous[None], following[None]
        return tvl1_cpu.solve(*pair, numbers=numbers, threads=1, simd=simd)[0]

    return solve


def dis(previous: np.ndarray, following: np.ndarray) -> np.ndarray:
    """DIS, medium preset; (2, H, W)."""
    solver = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return solver.calc(previous, following, None).transpose(2, 0, 1)


def farneback(previous: np.ndarray, following: np.ndarray) -> np.ndarray:
    """Farneback as in OpenCV's example; (2, H, W)."""
    numbers = (0.5, 3, 15, 3, 5, 1.2, 0)
    return cv2.calcOpticalFlowFarneback(previous, following, None, *numbers).transpose(2, 0, 1)


def skimage(previous: np.ndarray, following: np.ndarray) -> np.ndarray:
    """scikit-image's TV-L1; (2, H, W)."""
    from skimage.registration import optical_flow_tvl1

    return np.stack(optical_flow_tvl1(previous / 255, following / 255)[::-1])


def frame_pairs(paths: list[Path], indices: tuple[int, ...]) -> list[Pair]:
    """Grey frames (i, i + 1) of every video, for every index from 0."""
    pairs = []
    for path in paths:
        video, frames = cv2.VideoCapture(str(path)), []
        while len(frames) <= max(indices) + 1:
            read, frame = video.read()
            if not read:
                break
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))
        pairs += [(frames[i], frames[i + 1]) for i in indices if i + 1 < len(frames)]
    return pairs


def seconds(solver: Solver, pair: Pair, repeats: int = 1) -> float:
    """CPU seconds of one solution."""
    start = time.process_time()
    for _ in range(repeats):
        solver(*pair)
    return (time.process_time() - start) / repeats


def speed(pairs: list[Pair], rounds: int) -> dict[str, Any]:
    """CPU ms per pair of every method, and how many times faster than OpenCV's default."""
    fast = PRESETS["fast"]
    methods: dict[str, Solver] = {"opencv default": opencv({})}
    for simd in tvl1_cpu.library_info()["simd"]:
        methods[f"ours opencv {simd}"] = ours({}, simd)
    for simd in tvl1_cpu.library_info()["simd"]:
        methods[f"ours near {simd}"] = ours(NEAR, simd)
    for simd in tvl1_cpu.library_info()["simd"]:
        methods[f"ours fast {simd}"] = ours(fast, simd)
    methods |= {"ours cuda": ours(PRESETS["cuda"]), "opencv fast": opencv(fast)}
    methods |= {"dis medium": dis, "farneback": farneback, "skimage tvl1": skimage}
    times = np.zeros((len(methods), len(pairs), rounds))
    for round_ in range(rounds):
        for p, pair in enumerate(pairs):
            for m, solver in enumerate(methods.values()):
                if round_ == 0:
                    seconds(ours(fast), pair)  # warm
                quick = next(iter(methods)) != list(methods)[m] and m != len(methods) - 1
                times[m, p, round_] = seconds(solver, pair, 2 if quick else 1)
    middle = np.median(times, axis=2)
    ratios = middle[0] / middle
    return {
        name: {
            "ms": round(float(middle[m].mean()) * 1e3, 2),
            "times_faster": round(float(np.exp(np.log(ratios[m]).mean())), 1),
            "lowest": round(float(ratios[m].min()), 1),
            "highest": round(float(ratios[m].max()), 1),
        }
        for m, name in enumerate(methods)
    }


def share_within_a_level(first: np.ndarray, second: np.ndarray) -> float:
    """Per cent of values within one stored level at +-20 px."""
    levels = [quantize.quantize(flow, BOUND_PX).astype(int) for flow in (first, second)]
    return 100 * float(np.mean(np.abs(levels[0] - levels[1]) <= 1))


def compared(numbers: Mapping[str, Any]) -> dict[str, Solver]:
    """Who is compared with OpenCV; one is OpenCV with its input moved by one float32 ulp."""
    theirs = opencv(numbers)

    def moved(previous: np.ndarray, following: np.ndarray) -> np.ndarray:
        first, second = (np.float32(frame) / np.float32(255) for frame in (previous, following))
        return theirs(np.nextafter(first, np.float32(2)), second)

    near = {**numbers, **NEAR}
    return {"opencv": ours(numbers), "near": ours(near), "opencv one ulp off": moved}


def differences(pairs: list[Pair], numbers: Mapping[str, Any]) -> dict[str, Any]:
    """What lies between OpenCV's flow and that of `compared`, px and shares of pixels."""
    rows: dict[str, list[tuple[float, float, float, float]]] = {}
    for pair in pairs:
        expected = opencv(numbers)(*pair)
        for who, solver in compared(numbers).items():
            found = solver(*pair)
            off = np.abs(found - expected)
            share = share_within_a_level(found, expected)
            row = (off.mean(), off.max(), share, 100 * (off > 0.06).mean())
            rows.setdefault(who, []).append(row)
    return {who: summary(np.array(values)) for who, values in rows.items()}


def summary(rows: np.ndarray) -> dict[str, Any]:
    """One line from a row of (mean px, largest px, % within a level, % above 0.06 px) per pair."""
    mean, largest, within, above = rows.T
    return {
        "pairs": len(rows),
        "same_bits": int((largest == 0).sum()),
        "mean_px": float(mean.mean()),
        "largest_px": float(largest.max()),
        "per_cent_above_0.06_px": float(above.mean()),
        "within_a_level_mean": round(float(within.mean()), 3),
        "within_a_level_median": round(float(np.median(within)), 3),
        "within_a_level_lowest": round(float(within.min()), 3),
    }


def fixed_iterations(pairs: list[Pair]) -> dict[str, Any]:
    """Differences where no stop test amplifies them."""
    settings = {"1 scale 1 warp": ONE_LEVEL, "5 scales 5 warps": FIXED}
    return {name: differences(pairs, numbers) for name, numbers in settings.items()}


def middlebury(folder: Path) -> dict[str, Any]:
    """Mean end-point error per sequence, px."""
    fast = PRESETS["fast"]
    methods = {"opencv default": opencv({}), "opencv fast": opencv(fast), "ours fast": ours(fast)}
    methods |= {"ours opencv": ours({}), "dis medium": dis, "farneback": farneback}
    result: dict[str, Any] = {}
    for truth_path in sorted(folder.rglob("flow10.flo")):
        truth = cv2.readOpticalFlow(str(truth_path)).transpose(2, 0, 1)
        images = next(
            p.parent for p in folder.rglob("frame10.png") if p.parts[-2] == truth_path.parts[-2]
        )
        pair = [cv2.imread(str(images / f"frame{i}.png"), cv2.IMREAD_GRAYSCALE) for i in (10, 11)]
        known = np.abs(truth).max(0) < 1e9
        result[truth_path.parts[-2]] = {
            name: round(float(np.hypot(*(solver(*pair) - truth))[known].mean()), 4)
            for name, solver in methods.items()
        }
    if result:
        result["mean"] = {
            name: round(float(np.mean([row[name] for row in result.values()])), 4)
            for name in methods
        }
    return result


def same_bits(pairs: list[Pair]) -> bool:
    """Whether instruction sets, thread counts and order leave every bit as it is."""
    by_size: dict[tuple[int, ...], list[Pair]] = {}
    for pair in pairs:
        by_size.setdefault(pair[0].shape, []).append(pair)
    for group in by_size.values():
        first, second = (np.stack(frames) for frames in zip(*group, strict=True))
        for numbers in ({}, NEAR):
            expected = tvl1_cpu.solve(first, second, numbers=numbers, threads=1, simd="baseline")
            for simd in tvl1_cpu.library_info()["simd"]:
                for threads in (1, 2):
                    flow = tvl1_cpu.solve(
                        first[::-1], second[::-1], numbers=numbers, threads=threads, simd=simd
                    )
                    if flow[::-1].tobytes() != expected.tobytes():
                        return False
    return True


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--every-clip", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    clips = sorted((SHARED / "ucf101/videos").glob("*/*.avi"))
    spread = clips[:: max(1, len(clips) // arguments.pairs)][: arguments.pairs]
    pairs = frame_pairs(spread, (10,))
    wide = frame_pairs(clips, (10,)) if arguments.every_clip else pairs
    report: dict[str, Any] = {"opencv": cv2.__version__, "pairs": len(pairs)}
    others = (2, 20) if arguments.every_clip else ()
    parts: dict[str, Callable[[], Any]] = {
        "speed": lambda: speed(pairs, arguments.rounds),
        "agreement": lambda: {
            "pair 10": differences(wide, {}),
            **{f"pair {i}": differences(frame_pairs(clips, (i,)), {}) for i in others},
        },
        "fixed_iterations": lambda: fixed_iterations(wide),
        "middlebury_end_point_error_px": lambda: middlebury(SHARED / "middlebury-flow"),
        "same_bits": lambda: same_bits(pairs),
    }
    for name, part in parts.items():
        report[name] = part()
        print(f"## {name}\n{json.dumps(report[name], indent=2)}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
