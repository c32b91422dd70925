"""How long a run of UCF-101 takes with 1 to 64 workers: a simulation, not a measurement.

    python benchmarks/cluster_simulation.py [--shards 256] [--plot docs/images/cluster-makespan.png]

The graph is the real one: `conf/` is composed for 13,320 clips and `pipeline.dvc_yaml` reads it
(how long that takes is measured and printed). Durations are seconds of real runs, scaled per clip;
`ASSUMPTIONS` says how, `COSTS` holds every number. Workers take one stage at a time.

Two kinds of waiting are compared: as DVC needs it (a stage starts when what it reads is there) and
as Airflow's mapped tasks have it (a stage waits for every instance of the group before it).
"""

from __future__ import annotations

import argparse
import heapq
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from flowsight.pipeline import dvc_yaml, nodes
from flowsight.pipeline.dvc_yaml import Stage

ROOT = Path(__file__).resolve().parents[1]
WORKERS = (1, 2, 4, 8, 16, 32, 64)

# UCF-101: 27 hours at 25 frames a second in 13,320 clips of 320 x 240; official split 1
CLIPS, TRAIN_CLIPS, TEST_CLIPS = 13_320, 9_537, 3_783
VAL_SHARE = 0.2
FRAMES = 27 * 3600 * 25 / CLIPS
MEGAPIXELS = FRAMES * 320 * 240 / 1e6

ASSUMPTIONS = """\
- Data stages: CPU seconds of our own functions on ten UCF-101 clips of 320x240, one core of a busy
  two-core machine, times 13,320 (2026-11: manifest 1.9, frames 5.8, flow 635 ms per megapixel with
  preset `cuda`, 189 with `fast`; 3.2 ms to check a pack). `recipe=paper` decodes to 340x256.
- Networks: docs/performance.md, recipe `sample`, less 12 s until torch is loaded, times clips x
  epochs x views. That is the tiny network on a CPU core with that recipe's epochs. It stands in for
  Inception-V3 on a GPU, which nobody here has timed: `--gpu-factor` multiplies it. The hours of
  training are a guess; who waits for whom is not.
- `evaluate`, `report`, `splits` take what they take on the sample: not timed on 13,320 clips.
  `code` and `page` were not timed: they are taken to be like `report`.
- Of the systems `two_stream` alone.
- Every stage pays {overhead:.0f} s for its clone, pull and push and {handover:.0f} s for Airflow's
  hand-over: estimates, for the cluster test ran on a machine with five processes a core, where
  it was 13 s and more. Moving the data is NOT modelled: a network or an object store shared by
  64 workers is slower.
- One stage per worker, no failures, no other users, shards of equal size, equal machines; the
  scheduler hands over any number of ready tasks at once.
"""

OVERHEAD_SEC = 8.0
HANDOVER_SEC = 3.0


@dataclass(frozen=True)
class Cost:
    """Seconds of one stage: `start_sec + per_unit_sec * units`."""

    start_sec: float
    per_unit_sec: float
    unit: str
    """clip; frame; megapixel, of the source or of what is packed; sample (a clip seen once in
    training); view (a clip seen once in prediction)."""


TORCH = 12.0
"""Seconds until torch, torchvision and Lightning are there."""
# the embedded sample: 96 clips of 16 frames; 48 to train, 16 to validate, 32 to test
_SAMPLES, _VIEWS = 48 * 4, (16 + 32) * 8

COSTS: dict[str, Cost] = {
    "sample": Cost(10.0, 0.0, "clip"),
    "manifest": Cost(3.9, 1.9e-3, "megapixel"),
    "validate": Cost(9.5, 2 * 3.2e-3, "clip"),
    "frames": Cost(2.5, 5.8e-3, "megapixel packed"),
    "flow": Cost(2.5, 635e-3, "megapixel packed"),
    "splits": Cost(3.3, 0.0, "clip"),
    "train": Cost(TORCH, (57.7 / 2 - TORCH) / (_SAMPLES * 20), "sample"),
    "explain": Cost(TORCH, (32.1 / 2 - TORCH) / (96 * 16), "frame"),
    "refine": Cost(TORCH, (39.4 / 2 - TORCH) / (_SAMPLES * 8), "sample"),
    "predict": Cost(TORCH, (27.3 / 2 - TORCH) / _VIEWS, "view"),
    "evaluate": Cost(8.5, 0.0, "clip"),
    "report": Cost(4.0, 0.0, "clip"),
    "page": Cost(4.0, 0.0, "clip"),
    "code": Cost(4.0, 0.0, "clip"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=256)
    parser.add_argument("--gpu-factor", type=float, default=1.0, help="times the GPU stages' work")
    parser.add_argument("--json", type=Path, default=ROOT / "build/benchmarks/cluster.json")
    parser.add_argument("--plot", type=Path, default=ROOT / "build/benchmarks/cluster.png")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stages, reading = read_graph(Path(folder), args.shards, "systems=[two_stream]")
    result = simulate_all(stages, args.shards, args.gpu_factor)
    show(stages, reading, result)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    costs = {name: asdict(cost) for name, cost in COSTS.items()}
    content = {"reading": reading, "costs": costs, "assumptions": assumptions(), **result}
    args.json.write_text(json.dumps(content, indent=2) + "\n")
    args.plot.parent.mkdir(parents=True, exist_ok=True)
    plot(result, args.shards, args.plot)


def assumptions() -> str:
    return ASSUMPTIONS.format(overhead=OVERHEAD_SEC, handover=HANDOVER_SEC)


# the graph ---------------------------------------------------------------------------------------


def read_graph(
    folder: Path, num_shards: int, *more: str
) -> tuple[dict[str, Stage], dict[str, float]]:
    """Compose the paper's scale in a folder, read it as the DAGs do, and time the reading.

    Args:
        folder: to compose in.
        num_shards: of the videos.
        more: overrides beside dataset, recipe, shards and splits.
    """
    from flowsight.pipeline import composing

    shutil.copy(ROOT / "dvc.yaml", folder)
    shutil.copytree(ROOT / "conf", folder / "conf")
    shards = ",".join(str(k) for k in range(num_shards))
    wanted = ["dataset=ucf101", "recipe=paper", f"shards=[{shards}]", "splits.ids=['1','2','3']"]
    composing.compose([*wanted, *more], root=folder)
    start = time.process_time()  # other work on the machine does not count
    stages = dvc_yaml.load(folder)
    read = time.process_time()
    edges = dvc_yaml.upstream(stages)
    end = time.process_time()
    return stages, {
        "stages": len(stages),
        "edges": sum(map(len, edges.values())),
        "load_sec": round(read - start, 3),
        "upstream_sec": round(end - read, 3),
    }


def seconds(stage: Stage, num_shards: int, gpu_factor: float) -> float:
    """What one stage of UCF-101 would take, with all that a cluster adds."""
    cost = COSTS[stage.group]
    work = cost.per_unit_sec * units(stage, cost, num_shards)
    if stage.meta.get("gpus"):
        work *= gpu_factor
    return OVERHEAD_SEC + HANDOVER_SEC + cost.start_sec + work


def units(stage: Stage, cost: Cost, num_shards: int) -> float:
    """How many units of work a stage has: recipe `sample`'s epochs and views on UCF-101's clips."""
    packed = MEGAPIXELS * (340 * 256) / (320 * 240)
    epochs = 20 if stage.group == "train" else 8
    return {
        "clip": CLIPS if stage.key == "clips" else 0,
        "frame": CLIPS * FRAMES,
        "megapixel": CLIPS * MEGAPIXELS,
        "megapixel packed": CLIPS / num_shards * packed,
        "sample": TRAIN_CLIPS * (1 - VAL_SHARE) * 4 * epochs,
        "view": (TEST_CLIPS + VAL_SHARE * TRAIN_CLIPS) * 8,
    }[cost.unit]


def with_barriers(
    stages: Mapping[str, Stage], edges: Mapping[str, set[str]]
) -> dict[str, set[str]]:
    """Edges as Airflow has them: a mapped task waits for the whole group before it.

    The keys of `validate` stand at three places of the graph and are three tasks.
    """

    def node(name: str) -> str:
        return nodes.node_of(stages[name])

    members: dict[str, set[str]] = {}
    for name in stages:
        members.setdefault(node(name), set()).add(name)
    before: dict[str, set[str]] = {}
    for name, needed in edges.items():
        before.setdefault(node(name), set()).update(node(other) for other in needed)
    return {
        name: set().union(*(members[other] for other in before[node(name)] - {node(name)}))
        for name in stages
    }


# the simulation ----------------------------------------------------------------------------------


def simulate(
    duration: Mapping[str, float],
    edges: Mapping[str, set[str]],
    queue: Mapping[str, str],
    workers: Mapping[str, int],
    urgency: Mapping[str, float],
) -> float:
    """Seconds until the last stage ends; of what is ready the most urgent goes first."""
    waits = {name: len(before) for name, before in edges.items()}
    after = reversed_edges(edges)
    ready: dict[str, list[tuple[float, str]]] = {name: [] for name in workers}
    for name, count in waits.items():
        if count == 0:
            heapq.heappush(ready[queue[name]], (-urgency[name], name))
    free, running, now = dict(workers), [], 0.0
    while True:
        for kind, heap in ready.items():
            while heap and free[kind]:
                name = heapq.heappop(heap)[1]
                free[kind] -= 1
                heapq.heappush(running, (now + duration[name], name))
        if not running:
            return now
        now, name = heapq.heappop(running)
        free[queue[name]] += 1
        for later in after[name]:
            waits[later] -= 1
            if waits[later] == 0:
                heapq.heappush(ready[queue[later]], (-urgency[later], later))


def reversed_edges(edges: Mapping[str, set[str]]) -> dict[str, list[str]]:
    after: dict[str, list[str]] = {name: [] for name in edges}
    for name, before in edges.items():
        for other in before:
            after[other].append(name)
    return after


def longest_ways(duration: Mapping[str, float], edges: Mapping[str, set[str]]) -> dict[str, float]:
    """For each stage the seconds from its start to the end of the run, with endless workers."""
    from graphlib import TopologicalSorter

    after = reversed_edges(edges)
    rest: dict[str, float] = {}
    for name in reversed(list(TopologicalSorter(edges).static_order())):
        rest[name] = duration[name] + max((rest[later] for later in after[name]), default=0.0)
    return rest


def critical_path(rest: Mapping[str, float], edges: Mapping[str, set[str]]) -> list[str]:
    """The stages of the longest way, first to last."""
    after = reversed_edges(edges)
    way = [max(rest, key=lambda name: rest[name])]
    while after[way[-1]]:
        way.append(max(after[way[-1]], key=lambda name: rest[name]))
    return way


def simulate_all(
    stages: Mapping[str, Stage], num_shards: int, gpu_factor: float
) -> dict[str, object]:
    """Makespans over the grid of workers, for both kinds of waiting."""
    duration = {name: seconds(stage, num_shards, gpu_factor) for name, stage in stages.items()}
    queue = {name: str(stage.meta.get("queue", "cpu")) for name, stage in stages.items()}
    as_dvc = dvc_yaml.upstream(stages)
    found: dict[str, object] = {"work_sec": round(sum(duration.values()))}
    for kind, edges in (("stage", as_dvc), ("group", with_barriers(stages, as_dvc))):
        rest = longest_ways(duration, edges)
        way = critical_path(rest, edges)
        found[kind] = {
            "critical_sec": round(max(rest.values())),
            "critical_path": [(name, round(duration[name])) for name in way],
            "makespan_sec": {
                f"{cpu}x{gpu}": round(
                    simulate(duration, edges, queue, {"cpu": cpu, "gpu": gpu}, rest)
                )
                for cpu in WORKERS
                for gpu in WORKERS
            },
        }
    return found


# what is shown -----------------------------------------------------------------------------------


def show(
    stages: Mapping[str, Stage], reading: Mapping[str, float], result: Mapping[str, object]
) -> None:
    counts = Counter(stage.group for stage in stages.values())
    print(f"{len(stages)} stages ({', '.join(f'{n} {g}' for g, n in counts.items())})")
    print(
        f"read in {reading['load_sec']} s, {reading['edges']} edges in {reading['upstream_sec']} s"
    )
    print(f"work in all: {result['work_sec'] / 3600:.1f} h\n")  # type: ignore[operator]
    for kind, says in (("stage", "each stage waits for what it reads"), ("group", "as Airflow")):
        part: dict[str, dict[str, int]] = result[kind]  # type: ignore[assignment]
        print(f"hours, {says}; lines: CPU workers, columns: GPU workers")
        print("     " + "".join(f"{gpu:7d}" for gpu in WORKERS))
        for cpu in WORKERS:
            row = (part["makespan_sec"][f"{cpu}x{gpu}"] / 3600 for gpu in WORKERS)
            print(f"{cpu:5d}" + "".join(f"{hours:7.2f}" for hours in row))
        way = " > ".join(f"{name} {sec:.0f}" for name, sec in part["critical_path"])
        print(f"longest way {part['critical_sec'] / 3600:.2f} h: {way}\n")  # type: ignore[operator]
    print(assumptions())


def plot(result: Mapping[str, object], num_shards: int, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    titles = ("a stage waits for what it reads", "a stage waits for the whole group (Airflow)")
    for ax, kind, title in zip(axes, ("stage", "group"), titles, strict=True):
        part: dict[str, dict[str, int]] = result[kind]  # type: ignore[assignment]
        for gpu, shade in zip((1, 2, 4, 8), (0.15, 0.4, 0.6, 0.8), strict=True):
            hours = [part["makespan_sec"][f"{cpu}x{gpu}"] / 3600 for cpu in WORKERS]
            label = f"{gpu} GPU worker{'s' if gpu > 1 else ''}"
            ax.plot(WORKERS, hours, marker="o", ms=3.5, color=plt.cm.viridis(shade), label=label)
        longest = part["critical_sec"] / 3600  # type: ignore[operator]
        ax.axhline(longest, color="0.4", ls="--", lw=1)
        ax.annotate(f"longest way {longest:.1f} h", (1, longest), (0, -11), color="0.3",
                    fontsize=8, textcoords="offset points")  # fmt: skip
        ax.set(title=title, xlabel="CPU workers", xscale="log", yscale="log", xticks=WORKERS)
        ax.set_xticklabels(WORKERS)
        ax.minorticks_off()
        ax.spines[["top", "right"]].set_visible(False)
    ticks = [2, 4, 8, 16, 32, 64]
    axes[0].set(ylabel="hours (simulated)", yticks=ticks, yticklabels=ticks)
    axes[1].legend(frameon=False, fontsize=8)
    fig.suptitle(f"UCF-101, 13,320 clips, {num_shards} shards, 3 splits", fontsize=11)
    fig.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
