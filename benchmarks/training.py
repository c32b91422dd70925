"""Images a second of the training loop, beside the same network fed from memory.

`training.loop.fit` trains on packs of real clips ($FLOWSIGHT_SHARED/data, default ../shared/data;
where there are none, of the generated sample). Epochs take turns: one reads its clips, one gets
the same batches ready from memory, through the same loop; after each pair a plain loop in torch
(forward, backward, step, and nothing else) has its turn. Numbers are medians over the pairs. The
loss is that of the steps on clips just read; on a GPU the first epoch's peak of memory is given,
before the plain loop's network lies there too.

    python benchmarks/training.py [--cases resnet18-flow mobilenet-flow ...] [--rounds 15]
        [--batch 8] [--batches 4] [--threads 2] [--workers 0] [--data FOLDER, kept]
        [--json build/benchmarks/training.json]

The full size, on a GPU (320 steps on clips just read, as many from memory):

    python benchmarks/training.py --cases inception_v3-rgb inception_v3-flow --precision bf16-mixed
        --batch 32 --batches 80 --rounds 3 --clips 24 --classes 4 --lr 0.01
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import training_data
from rich.console import Console
from rich.table import Table
from torch import Tensor
from training_data import ROOT, Data
from training_turns import Turns, plain_loop, recorded_losses

from flowsight.batches import clips
from flowsight.classifiers import networks
from flowsight.classifiers.params import RowParams
from flowsight.nn.backbone import TARGET_LAYERS
from flowsight.params import config
from flowsight.systems.two_stream import network as two_stream
from flowsight.training import loop

STACK_LENGTH = 5
CASES = {
    "resnet18-flow": ("resnet18", "flow", 224),
    "resnet18-rgb": ("resnet18", "rgb", 224),
    "mobilenet-flow": ("mobilenet_v3_small", "flow", 112),
    "mobilenet-rgb": ("mobilenet_v3_small", "rgb", 112),
    "inception_v3-flow": ("inception_v3", "flow", 299),
    "inception_v3-rgb": ("inception_v3", "rgb", 299),
}
DEFAULT_CASES = list(CASES)[:4]
SHOWN_STEPS = 20
"""Steps at the beginning and at the end whose mean loss is given."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=DEFAULT_CASES, choices=list(CASES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=8, help="images of a step")
    parser.add_argument("--batches", type=int, default=4, help="steps of an epoch")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--workers", type=int, default=None, help="FLOWSIGHT_WORKERS")
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--data", type=Path, help="folder of packs, made where there is none")
    training_data.add_options(parser)
    parser.add_argument("--json", type=Path, default=ROOT / "build/benchmarks/training.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FLOWSIGHT_SCRATCH"] = f"{folder}/scratch"
        kept = args.data or Path(folder)
        data = training_data.make(kept, args.clips, tuple(args.size), args.classes)
        if args.workers is not None:
            os.environ["FLOWSIGHT_WORKERS"] = str(args.workers)
        report: dict[str, Any] = conditions(args, data)
        report["cases"] = {name: measure(name, data, args) for name in args.cases}
    report["load_after"] = os.getloadavg()
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")
    show(report)


def conditions(args: argparse.Namespace, data: Data) -> dict[str, Any]:
    """What the numbers depend on."""
    on_gpu = torch.cuda.is_available()
    return {
        "source": data.source,
        "clips": data.clips,
        "classes": data.labels,
        "frames_px": list(data.size),
        "batch": args.batch,
        "batches": args.batches,
        "rounds": args.rounds,
        "lr": args.lr,
        "stack_length": STACK_LENGTH,
        "threads": args.threads,
        "workers": clips.num_workers(),
        "precision": args.precision,
        "tf32": {
            "matmul": torch.backends.cuda.matmul.allow_tf32,
            "cudnn": torch.backends.cudnn.allow_tf32,
        },
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "torch": torch.__version__,
        "load_before": os.getloadavg(),
    }


def make_row(
    backbone: str, modality: str, crop_px: int, num_clips: int, args: argparse.Namespace
) -> RowParams:
    """A row as `params.yaml` has it, with another network and size."""
    row = config.load(ROOT / "params.yaml").row("spatial" if modality == "rgb" else "temporal")
    flow = modality == "flow"
    layers = (TARGET_LAYERS[backbone],)
    return dataclasses.replace(
        row,
        start=dataclasses.replace(row.start, weights=None),
        network=dataclasses.replace(
            row.network,
            backbone=backbone,
            map_channel=False,
            dropout=0.5,
            target_layers=layers,
        ),
        input=dataclasses.replace(
            row.input,
            stack_length=STACK_LENGTH if flow else 1,
            num_segments=1,
            resize_px=max(crop_px, round(crop_px * 8 / 7)),
            crop_px=crop_px,
            scales=(1.0, 0.875, 0.75) if flow else (1.0, 0.875, 0.75, 0.66),  # TSN's
        ),
        train=dataclasses.replace(
            row.train,
            epochs=2 * (1 + args.rounds),
            batch_size=args.batch,
            accumulate=1,
            samples_per_epoch=-(-args.batch * args.batches // num_clips),
            optimizer="sgd",
            lr=args.lr,
            schedule="constant",
            patience=None,
            precision=args.precision,
        ),
    )


def measure(name: str, data: Data, args: argparse.Namespace) -> dict[str, Any]:
    """Images a second of a case: read, from memory, in a plain loop; memory, loss."""
    backbone, modality, crop_px = CASES[name]
    row = make_row(backbone, modality, crop_px, data.clips, args)
    bare, bare_sec = networks.build(two_stream, row, len(data.labels)), []
    turns: list[Turns] = []
    fresh_gpu()

    def plain_turn(batches: Sequence[Any]) -> None:
        start = time.perf_counter()
        plain_loop(bare, batches, args.precision)
        bare_sec.append(time.perf_counter() - start)

    def in_turns(*given: Any) -> Turns:
        turns.append(Turns(clips.loader(*given), plain_turn))
        return turns[0]

    with (
        mock.patch.object(loop, "loader", in_turns),
        recorded_losses(lambda: turns[0].reads) as losses,
    ):
        loop.fit(
            model=two_stream,
            row=row,
            row_name=name,
            params=dataclasses.replace(config.load(ROOT / "params.yaml"), threads=args.threads),
            manifest=data.manifest,
            split=data.split,
            packs=data.packs[modality],
            scratch_key=f"benchmark/{name}",
            log=lambda metrics, step: turns[0].epoch_done(),
        )
    found = summary(turns[0], bare_sec) | {"loss": shown_loss(losses)}
    return found | {"gpu_memory_gb": turns[0].peak}


def fresh_gpu() -> None:
    """Forget the case before: its tensors and its peak."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def shown_loss(losses: Sequence[Tensor]) -> dict[str, float]:
    """Mean of the first and of the last steps, and how many there were on clips just read."""
    values = torch.stack(list(losses)).float().cpu()
    first, last = values[:SHOWN_STEPS].mean().item(), values[-SHOWN_STEPS:].mean().item()
    return {"first": round(first, 4), "last": round(last, 4), "steps": len(values)}


def summary(turns: Turns, bare_sec: list[float]) -> dict[str, Any]:
    """Medians over the pairs of epochs; the first pair warms up."""
    sec = {name: values[1:] for name, values in (turns.sec | {"plain": bare_sec}).items()}
    costs = [1 - m / c for c, m in zip(sec["clips"], sec["memory"], strict=True)]
    per_image = {name: statistics.median(values) / turns.images for name, values in sec.items()}
    quartiles = statistics.quantiles(costs, n=4) if len(costs) > 1 else [costs[0]] * 3
    return {
        "images_per_sec": {n: round(1 / per_image[n], 1) for n in ("clips", "memory", "plain")},
        "loader_cost": round(statistics.median(costs), 4),
        "loader_cost_quartiles": [round(quartiles[0], 4), round(quartiles[2], 4)],
        "waiting_ms_per_image": round(1e3 * per_image["waiting"], 2),
        "to_plain": round(per_image["plain"] / per_image["clips"], 3),
        "epoch_sec": {name: [round(one, 3) for one in values] for name, values in sec.items()},
    }


def show(report: dict[str, Any]) -> None:
    """A table, then the whole as JSON."""
    print(
        f"{report['device']}, {report['precision']}, batches of {report['batch']}, "
        f"{report['workers']} workers, torch {report['torch']}"
    )
    columns = ("case", "clips img/s", "memory img/s", "plain img/s", "loader costs", "quartiles")
    table = Table(*columns, "waits ms/img", "of plain", "loss", "GB")
    for name, case in report["cases"].items():
        rates = (f"{rate:.1f}" for rate in case["images_per_sec"].values())
        low, high = case["loader_cost_quartiles"]
        table.add_row(
            name,
            *rates,
            f"{case['loader_cost']:.1%}",
            f"{low:.1%} .. {high:.1%}",
            f"{case['waiting_ms_per_image']:.2f}",
            f"{case['to_plain']:.0%}",
            f"{case['loss']['first']:.3f} to {case['loss']['last']:.3f}",
            str(case["gpu_memory_gb"].get("allocated", "")),
        )
    Console(width=150).print(table)
    print(json.dumps(report, sort_keys=True))


if __name__ == "__main__":
    main()
