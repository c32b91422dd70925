"""Quality of optical flow against its speed: end-point errors on exact truth, and a plot.

Truth: the generated sample's (run `make repro` first, it lies in data/raw/sample) and Middlebury's
training sequences under $FLOWSIGHT_SHARED/data (default ../shared/data). Speed: CPU time of one
thread on the sample's pairs and on Middlebury's, methods in turn, as times OpenCV's TV-L1 default.
Noise: what OpenCV's TV-L1 answers when its input moves by 1e-4 grey levels.

    python benchmarks/flow_quality.py [--sample-pairs 24] [--json FILE]
        [--plot docs/images/flow-quality.png]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flowsight.flow.tvl1_numbers import PRESETS

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("FLOWSIGHT_SHARED", ROOT.parent / "shared")) / "data"
NOISE_LEVELS = 1e-4

# another script of this folder: methods and the share of pixels within a level
_spec = importlib.util.spec_from_file_location("flow", ROOT / "benchmarks" / "flow.py")
assert _spec is not None and _spec.loader is not None
speed = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(speed)

# where labels stand, so that they do not meet
LABELS = {
    "flowsight opencv": ((0, -14), "center"),
    "flowsight cuda": ((0, 8), "center"),
    "flowsight fast": ((8, -14), "center"),
    "DIS medium": ((-6, 6), "right"),
    "Farneback": ((-8, -3), "right"),
    "OpenCV TV-L1": ((6, -12), "left"),
    "OpenCV TV-L1, fast's numbers": ((0, 9), "center"),
}

Solver = Callable[[np.ndarray, np.ndarray], np.ndarray]
Item = tuple[np.ndarray, np.ndarray, np.ndarray]
"""previous, following (H, W) uint8; true flow (2, H, W), NaN where it is not known."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample-pairs", type=int, default=24)
    parser.add_argument("--json", type=Path, default=ROOT / "build/benchmarks/flow_quality.json")
    parser.add_argument("--plot", type=Path, default=ROOT / "build/benchmarks/flow-quality.png")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    methods = solvers()
    report: dict[str, Any] = {"opencv": cv2.__version__}
    report["sample"] = score(sample_items(args.sample_pairs), methods)
    report["middlebury"] = score(middlebury_items(), methods)
    report["noise"] = noise(list(sample_items(6).values()))
    for path in (args.json, args.plot):
        path.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")
    print(json.dumps(report, indent=2))
    plot(report, args.plot)


def solvers() -> dict[str, Solver]:
    """Every method by its name in the table."""
    fast = PRESETS["fast"]
    return {
        "OpenCV TV-L1": speed.opencv({}),
        "OpenCV TV-L1, fast's numbers": speed.opencv(fast),
        "flowsight opencv": speed.ours({}),
        "flowsight near": speed.ours(PRESETS["near"]),
        "flowsight cuda": speed.ours(PRESETS["cuda"]),
        "flowsight fast": speed.ours(fast),
        "scikit-image TV-L1": speed.skimage,
        "DIS medium": speed.dis,
        "Farneback": speed.farneback,
    }


def sample_items(num: int) -> dict[str, Item]:
    """Pairs of the generated sample, spread over its clips, one from the middle of each."""
    root = ROOT / "data/raw/sample"
    items = {}
    paths = sorted((root / "truth").glob("*/*.npz"))
    for path in paths[:: max(1, len(paths) // num)][:num]:
        with np.load(path) as truth:
            flow = truth["flow"].astype(np.float32)
        capture = cv2.VideoCapture(str(root / "videos" / path.parent.name / f"{path.stem}.avi"))
        grey = []
        while (read := capture.read())[0]:
            grey.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2GRAY))
        at = len(grey) // 2 - 1
        items[path.stem] = (grey[at], grey[at + 1], flow[at])
    return items


def middlebury_items() -> dict[str, Item]:
    """The training sequences whose truth is public."""
    folder = SHARED / "middlebury-flow"
    items = {}
    for path in sorted(folder.rglob("flow10.flo")):
        name = path.parent.name
        flow = cv2.readOpticalFlow(str(path)).transpose(2, 0, 1)
        flow = np.where(np.abs(flow) < 1e9, flow, np.nan)
        pair = [folder / "other-data" / name / f"frame{index}.png" for index in (10, 11)]
        previous, following = (cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in pair)
        items[name] = (previous, following, flow)
    return items


def score(items: Mapping[str, Item], methods: Mapping[str, Solver]) -> dict[str, Any]:
    """End-point error per item and method, its mean, and how many times faster than OpenCV."""
    errors: dict[str, dict[str, float]] = {name: {} for name in methods}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for key, (previous, following, truth) in items.items():
        for name, solve in methods.items():
            start = time.process_time()
            flow = solve(previous, following)
            seconds[name].append(time.process_time() - start)
            errors[name][key] = float(np.nanmean(np.hypot(*(flow - truth))))
    base = np.array(seconds["OpenCV TV-L1"])
    first = float(np.mean(list(errors["OpenCV TV-L1"].values())))
    result = {}
    for name in methods:
        mean = float(np.mean(list(errors[name].values())))
        result[name] = {
            "mean_px": round(mean, 4),
            "to_opencv_per_cent": round(100 * (mean / first - 1), 2),
            "times_faster": round(float(np.exp(np.log(base / np.array(seconds[name])).mean())), 1),
        }
        if len(items) < 10:
            result[name]["each_px"] = {key: round(e, 4) for key, e in errors[name].items()}
    return result


def noise(items: list[Item]) -> dict[str, float]:
    """OpenCV against itself when its first frame moves by up to 1e-4 grey levels."""
    solve, rng = speed.opencv({}), np.random.default_rng(0)
    shares, distances = [], []
    for previous, following, _ in items:
        first, second = (frame.astype(np.float32) / 255 for frame in (previous, following))
        moved = first + rng.uniform(-NOISE_LEVELS, NOISE_LEVELS, first.shape) / 255
        flows = [solve(np.clip(one, 0, 1).astype(np.float32), second) for one in (first, moved)]
        shares.append(speed.share_within_a_level(*flows))
        distances.append(float(np.abs(flows[0] - flows[1]).mean()))
    return {
        "within_a_level_per_cent": round(float(np.mean(shares)), 3),
        "mean_px": round(float(np.mean(distances)), 5),
    }


def plot(report: Mapping[str, Any], path: Path) -> None:
    """End-point error over speed, both data sets."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    titles = {"sample": "generated sample, 160x120", "middlebury": "Middlebury, training sequences"}
    for axis, (key, title) in zip(axes, titles.items(), strict=True):
        for name, row in report[key].items():
            ours = name.startswith("flowsight")
            color = "tab:red" if ours else "tab:grey"
            axis.scatter(row["times_faster"], row["mean_px"], color=color, zorder=3)
            offset, side = LABELS.get(name, ((6, 5), "left"))
            axis.annotate(
                name,
                (row["times_faster"], row["mean_px"]),
                xytext=offset,
                textcoords="offset points",
                ha=side,
                fontsize=8,
            )
        axis.set_xscale("log")
        axis.set_ylim(0, 1.1 * max(row["mean_px"] for row in report[key].values()))
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("times as fast as OpenCV's TV-L1, one core")
        axis.set_ylabel("mean end-point error, px")
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
