"""Networks over images with fewer kernels: detection time as a ratio to the full network's.

    python benchmarks/saliency.py times [--recipe small] [--study slimming searched]
            [--size 400x300] [--rounds 7]
        every experiment of the paper and more studies' rows, by turns in one process: parameters,
        multiply-adds, and the median over rounds of each round's ratio to the full network
    python benchmarks/saliency.py search fcn --budget 0.8 [--split 1]
        a plan for a trained row of params.yaml whose time is this share of the full network's,
        greedily by Taylor importance per second saved; prints it as a study takes it
    python benchmarks/saliency.py plot [--metrics results/saliency/metrics.json] [--out FILE.png]
        time against F: the paper's points, and ours where the metrics have the row

Times are of the CPU (`process_time`, one thread), or by a GPU's own events. Every network is timed
in turn in every round, so that a busy machine shows as noise and not as somebody's advantage.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowsight.datasets.images.pairs import load_pairs
from flowsight.evaluation import published
from flowsight.nn import cost, plan_search, slimming
from flowsight.params import config
from flowsight.pipeline import composing
from flowsight.systems.saliency import batches as pair_batches
from flowsight.systems.saliency import networks as saliency_networks
from flowsight.systems.saliency import training
from flowsight.systems.saliency.network.losses import image_loss
from flowsight.systems.saliency.params import Block, ImageRowParams, SlimParams

ROOT = Path(__file__).resolve().parents[1]
JSON = ROOT / "build/benchmarks/saliency.json"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    kinds = parser.add_subparsers(dest="kind", required=True)
    times = kinds.add_parser("times")
    times.add_argument("--recipe", default=None, help="default: the rows of params.yaml")
    times.add_argument(
        "--study", nargs="+", default=["slimming"], help="with --recipe: the rows of"
    )
    times.add_argument("--size", default="400x300", help="width x height of the image, px")
    times.add_argument("--rounds", type=int, default=7)
    times.add_argument("--json", dest="saved", type=Path, default=JSON)
    search = kinds.add_parser("search")
    search.add_argument("row")
    search.add_argument("--budget", type=float, required=True, help="share of the full time")
    search.add_argument("--split", default="1")
    search.add_argument("--rounds", type=int, default=7)
    search.add_argument("--images", type=int, default=16, help="training images scored a round")
    search.add_argument("--slice", type=float, default=0.125, help="share cut at once")
    search.add_argument(
        "--json", dest="saved", type=Path, default=JSON.with_name("saliency_search.json")
    )
    plot = kinds.add_parser("plot")
    plot.add_argument("--json", dest="saved", type=Path, default=JSON)
    plot.add_argument("--metrics", type=Path, default=ROOT / "results/saliency/metrics.json")
    plot.add_argument("--out", type=Path, default=ROOT / "build/benchmarks/saliency.png")
    args = vars(parser.parse_args())
    torch.set_num_threads(args.pop("threads"))
    {"times": time_rows, "search": find_plan, "plot": draw}[args.pop("kind")](**args)


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def machine() -> str:
    """What it ran on, and how busy it was at the start."""
    if device().type == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def write(report: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")


# times


def rows_of(recipe: str | None, studies: Sequence[str]) -> Block:
    """Rows of params.yaml, or of studies with a recipe."""
    if recipe is None:
        return config.load(ROOT / "params.yaml").system("saliency")  # type: ignore[no-any-return]
    chosen = [f"recipe={recipe}", f"study=[{','.join(studies)}]"]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "conf").symlink_to(ROOT / "conf")
        return composing.compose(chosen, root=folder).system("saliency")  # type: ignore[no-any-return]


def slim_network(block: Block, row: ImageRowParams) -> nn.Module:
    """Random weights of the row's size: what they are changes no time."""
    torch.manual_seed(0)
    network = saliency_networks.build(row)
    cut = slimming.plan_cut(network, block.plan_of(row), saliency_networks.example(row))
    network = slimming.apply(network, cut).to(device()).eval()
    return network.to(memory_format=torch.channels_last)


def time_rows(
    recipe: str | None, study: Sequence[str], size: str, rounds: int, saved: Path
) -> None:
    """Parameters, multiply-adds and times of every row."""
    block = rows_of(recipe, study)
    experiments = {row: letter for letter, row in block.evaluate.experiments.items()}
    width, height = (int(part) for part in size.split("x"))
    base = next(name for name, row in block.rows.items() if row.start.init is None)
    factor = pair_batches.shrink_factor((height, width), block.rows[base].input.long_px)
    seen = max(1, round(height * factor)), max(1, round(width * factor))
    x = torch.randn(1, 3, *seen, device=device()).contiguous(memory_format=torch.channels_last)
    networks = {name: slim_network(block, row) for name, row in block.rows.items()}
    found = by_turns({name: (network, x) for name, network in networks.items()}, rounds)
    report: dict[str, Any] = {
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "network": block.rows[base].network.backbone,
        "height": seen[0],
        "width": seen[1],
        "rounds": rounds,
        "base": base,
        "rows": {},
    }
    print(f"{machine()}, {torch.get_num_threads()} threads; {seen[1]} x {seen[0]} px")
    heads = f"{'parameters':>12} {'MMACs':>10} {'share':>6} {'ms':>8} {'time ratio (range)':>24}"
    print(f"{'':14} {heads}")
    macs = cost.multiply_adds(networks[base], x)
    for name, network in networks.items():
        ratios = [own / full for own, full in zip(found[name], found[base], strict=True)]
        entry = {
            "experiment": experiments.get(name),
            "parameters": cost.num_parameters(network),
            "multiply_adds": cost.multiply_adds(network, x),
            "ms": 1000 * statistics.median(found[name]),
            "ratio": statistics.median(ratios),
            "lowest": min(ratios),
            "highest": max(ratios),
        }
        report["rows"][name] = entry
        print(
            f"{name:14} {entry['parameters']:12,} {entry['multiply_adds'] / 1e6:10,.0f} "
            f"{entry['multiply_adds'] / macs:6.3f} {entry['ms']:8.1f} {entry['ratio']:10.3f} "
            f"({entry['lowest']:.3f}-{entry['highest']:.3f})"
        )
    write(report, saved)


def by_turns(
    networks: Mapping[str, tuple[nn.Module, Tensor]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each network in each round; warm, and from another one each round."""
    times: dict[str, list[float]] = {name: [] for name in networks}
    with torch.inference_mode():
        for network, x in networks.values():
            network(x)
        for turn in range(rounds):
            start = turn % len(networks)
            for name in [*networks][start:] + [*networks][:start]:
                network, x = networks[name]
                times[name].append(timed(lambda n=network, x=x: n(x)))  # type: ignore[misc]
    return times


def timed(step: Callable[[], object]) -> float:
    """Seconds of one step: of the CPU's time, or of the GPU's by its events."""
    if device().type != "cuda":
        start = time.process_time()
        step()
        return time.process_time() - start
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    step()
    last.record()
    torch.cuda.synchronize()
    return float(first.elapsed_time(last)) / 1000


# search


def layer_seconds(network: nn.Module, x: Tensor, rounds: int) -> tuple[dict[str, float], float]:
    """Median seconds of each convolution by itself, and of a whole pass."""
    inputs: dict[str, Tensor] = {}
    parts = {n: p for n, p in network.named_modules() if isinstance(p, nn.Conv2d)}
    hooks = [
        part.register_forward_pre_hook(
            lambda _, given, name=name: inputs.__setitem__(name, given[0].clone())
        )
        for name, part in parts.items()
    ]
    with torch.inference_mode():
        network(x)
    for hook in hooks:
        hook.remove()
    every: dict[str, tuple[nn.Module, Tensor]] = {n: (p, inputs[n]) for n, p in parts.items()}
    found = by_turns({**every, "": (network, x)}, rounds)
    whole = statistics.median(found.pop(""))
    return {name: statistics.median(values) for name, values in found.items()}, whole


def find_plan(
    row: str, budget: float, split: str, rounds: int, images: int, slice: float, saved: Path
) -> None:
    """Search, time what was found, print it as a study."""
    params = config.load(ROOT / "params.yaml")
    own, name = params.system("saliency").row(row), params.images.name
    folder = ROOT / f"checkpoints/{name}/{row}-{split}"
    network = saliency_networks.restored(own, {}, folder).to(device()).eval()
    network = network.to(memory_format=torch.channels_last)
    pairs = load_pairs(ROOT / "data/raw" / name, ROOT / "data/pairs" / name, split)
    train = [pair for pair in pairs if pair.subset == "train"]
    scored_row = _scored(own, images)
    batches = list(training.scoring_batches(train, scored_row, params.seed, device()))
    x = batches[0][0][:1]
    layers = [n for n, p in network.named_modules() if type(p) is nn.Conv2d and "score" not in n]

    def score(net: nn.Module, names: Sequence[str]) -> slimming.Scores:
        return slimming.taylor_scores(
            net, names, saliency_networks.example(own), batches, image_loss
        )

    seconds, whole = layer_seconds(network, x, rounds)
    slim, own_seconds, aim = network, seconds, budget
    steps: list[plan_search.Step] = []
    while True:  # layers' times miss what pooling and memory cost: measure, aim lower, go on
        found = plan_search.search(
            slim,
            layers,
            saliency_networks.example(own),
            seconds=own_seconds,
            other_seconds=max(0.0, whole - sum(seconds.values())),
            score=score,
            budget=aim * whole,
            slice_share=slice,
            original=network,
        )
        slim, own_seconds, steps = found.network, found.seconds, [*steps, *found.steps]
        ratio = _ratio(network, slim, x, 3 * rounds)
        print(f"aimed at {aim:.3f} of the time by the layers, measured {ratio:.3f}", flush=True)
        if ratio <= budget:
            break
        aim *= min(0.99, budget / ratio)
    for step in steps:
        print(f"  {'+'.join(step.layers):40} -> {step.kept:5}, loss {step.loss:.5f}")
    plan = {layer: round(share, 6) for layer, share in found.plan.items()}
    text = ", ".join(f"{layer}: {share:g}" for layer, share in plan.items())
    print(f"systems:\n  saliency:\n    plans:\n      searched: {{{text}}}")
    write(
        {
            "machine": machine(),
            "row": row,
            "budget": budget,
            "ratio": ratio,
            "plan": plan,
            "parameters": cost.num_parameters(found.network),
            "multiply_adds": cost.multiply_adds(found.network, x),
            "base_multiply_adds": cost.multiply_adds(network, x),
        },
        saved,
    )


def _scored(row: ImageRowParams, count: int) -> ImageRowParams:
    """The row as one whose kernels are scored on so many images."""
    slim = SlimParams(plan="", choice="taylor", num_images=count)
    return dataclasses.replace(row, start=dataclasses.replace(row.start, init="", slim=slim))


def _ratio(full: nn.Module, slim: nn.Module, x: Tensor, rounds: int) -> float:
    slim = slim.eval().to(memory_format=torch.channels_last)
    times = by_turns({"full": (full, x), "slim": (slim, x)}, rounds)
    return statistics.median(s / f for s, f in zip(times["slim"], times["full"], strict=True))


# plot


def draw(saved: Path, metrics: Path, out: Path) -> None:
    """Time ratio against F, the paper's and ours."""
    from flowsight.evaluation.figures import blank_figure, save_figure

    figure = blank_figure(7.2, 4.8)
    ax = figure.subplots()
    table = published.read("saliency").pivot_table(
        index=["dataset", "item"], columns="metric", values="value"
    )
    for dataset, colour in (("MSRA10K", "#7a8699"), ("DUT-OMRON", "#b8962e")):
        own = table.loc[dataset]
        ratios = own["detection_time"] / own.loc["base", "detection_time"]
        _points(
            ax, ratios, own["f_score"], [str(i) for i in own.index], colour, f"{dataset}, paper"
        )
    report = load_json(saved)
    scores = load_json(metrics)
    rows = {n: r for n, r in report["rows"].items() if f"{n}/f_beta" in scores}
    if not rows:
        raise SystemExit(f"error: {metrics} has none of the rows of {saved}; time the same rows")
    _points(
        ax,
        [row["ratio"] for row in rows.values()],
        [scores[f"{name}/f_beta"] for name in rows],
        [row["experiment"] or name.rpartition("_")[2] for name, row in rows.items()],
        "#18866b",
        f"ours, {report['network']}",
    )
    ax.set_xlabel("detection time, share of the full network's")
    ax.set_ylabel("F (beta² = 0.3)")
    ax.grid(color="#d5dae1", lw=0.6)
    ax.legend(frameon=False, fontsize=9, loc="lower right")
    for spine in ax.spines.values():
        spine.set_visible(False)
    figure.tight_layout()
    save_figure(figure, out)
    print(out)


def _points(
    ax: Any,
    x: Sequence[float],
    y: Sequence[float],
    names: Sequence[str],
    colour: str,
    label: str,
) -> None:
    ax.plot(list(x), list(y), "o", color=colour, ms=6, label=label)
    for number, (a, b, name) in enumerate(sorted(zip(x, y, names, strict=True))):
        aside = (4, -11) if number % 2 else (4, 4)  # neighbours' names above and below
        ax.annotate(name, (a, b), xytext=aside, textcoords="offset points", fontsize=8,
                    color=colour)  # fmt: skip


def load_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise SystemExit(f"error: expected {path}, found no such file; make it first")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


if __name__ == "__main__":
    main()
