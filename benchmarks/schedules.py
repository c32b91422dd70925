"""Both schedules of training against wall time: two phases, and in turns (Algorithm 1).

    python benchmarks/schedules.py [--recipe sample] [--plot docs/images/schedules.png]
        [--json build/benchmarks/schedules.json]

Runs `study=schedules` in a scratch clone, data stages first, then each schedule by itself, one
stage at a time. An epoch's second is when it was logged (MLflow's time stamp), counted from the
schedule's first stage; so the steps between, such as drawing maps, are in it. The figure over
epochs is in the report of a run with `study=schedules`.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from pipeline import clone, flowsight

ROOT = Path(__file__).resolve().parents[1]
SPLIT = "1"
STREAMS = ("spatial", "temporal")
SCHEDULES = {
    "two phases": {
        "stages": [f"refine@{stream}_attended-{SPLIT}" for stream in ("spatial", "temporal")],
        "rows": {s: [s, f"{s}_attended"] for s in ("spatial", "temporal")},
    },
    "in turns": {
        "stages": [f"alternate@spatial_turns-{SPLIT}"],
        "rows": {stream: [f"{stream}_turns"] for stream in STREAMS},
    },
}
Curve = list[tuple[float, float]]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="sample")
    parser.add_argument("--plot", type=Path, default=ROOT / "build/benchmarks/schedules.png")
    parser.add_argument("--json", type=Path, default=ROOT / "build/benchmarks/schedules.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flowsight-schedules-") as folder:
        found = measure(Path(folder), args.recipe)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(found, indent=2) + "\n")
    show(found)
    draw(found, args.plot)


def measure(work: Path, recipe: str) -> dict[str, Any]:
    """Seconds of each schedule, and per stream what it had reached when."""
    clone(work)
    flowsight("compose", "study=schedules", f"recipe={recipe}", cwd=work)
    dvc(work, "validate@splits")
    found: dict[str, Any] = {}
    for name, schedule in SCHEDULES.items():
        begin = time.time()
        dvc(work, *schedule["stages"])
        seconds = time.time() - begin
        flowsight("tracking", "send", cwd=work)
        curves = {
            stream: {
                quantity: logged(work / "mlflow.db", rows, f"val_{quantity}", begin)
                for quantity in ("loss", "accuracy")
            }
            for stream, rows in schedule["rows"].items()
        }
        found[name] = {"sec": round(seconds, 1), "streams": curves}
    return found


def dvc(work: Path, *targets: str) -> None:
    """Run stages and what they need, one after the other."""
    folder = Path(sys.executable).parent
    env = {k: v for k, v in os.environ.items() if k not in ("FLOWSIGHT_TRACKING", "FLOWSIGHT_REPO")}
    env |= {"PATH": f"{folder}:{env['PATH']}", "FLOWSIGHT_SCRATCH": str(work / "build/scratch")}
    subprocess.run([folder / "dvc", "repro", "--quiet", *targets], cwd=work, env=env, check=True)


def logged(database: Path, rows: list[str], metric: str, begin: float) -> Curve:
    """Seconds after `begin` and value, of these rows' runs one after the other."""
    names = ", ".join(f"'{row}-{SPLIT}'" for row in rows)
    sql = (
        "select timestamp, value from metrics join runs using (run_uuid) "
        f"where key = ? and name in ({names}) order by timestamp"
    )
    with closing(sqlite3.connect(database)) as store:
        return [(round(ms / 1e3 - begin, 2), value) for ms, value in store.execute(sql, (metric,))]


def show(found: dict[str, Any]) -> None:
    """A line per schedule and stream."""
    for name, schedule in found.items():
        for stream, curves in schedule["streams"].items():
            last = {quantity: curve[-1][1] for quantity, curve in curves.items()}
            print(
                f"{name:<11} {stream:<9} {schedule['sec']:7.1f} s  {len(curves['loss']):3d} epochs"
                f"  validation loss {last['loss']:.3f}  accuracy {100 * last['accuracy']:.1f} %"
            )


def draw(found: dict[str, Any], path: Path) -> None:
    """Loss and accuracy on validation clips over seconds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    colours = {"spatial": "#0b6e99", "temporal": "#c2571a"}
    for axis, quantity in zip(axes, ("loss", "accuracy"), strict=True):
        for name, schedule in found.items():
            for stream, curves in schedule["streams"].items():
                seconds, values = zip(*curves[quantity], strict=True)
                style = "--" if name == "in turns" else "-"
                label = f"{stream}, {name}"
                axis.plot(seconds, values, style, color=colours[stream], label=label)
        axis.set(xlabel="seconds since the first stage", ylabel=f"{quantity} (validation)")
        axis.set_ylim(bottom=0)
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].legend(frameon=False, fontsize=8, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
