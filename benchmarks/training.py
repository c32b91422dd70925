"""Images a second of the training loop, beside the same network fed from memory.

`training.fit` trains on packs of real clips ($FLOWSIGHT_SHARED/data, default ../shared/data; where
there are none, of the generated sample). Epochs take turns: one reads its clips, the next gets the
same batches ready from memory, through the same loop; after each pair a plain loop in torch
(forward, backward, step, and nothing else) has its turn. Numbers are medians over the pairs.

    python benchmarks/training.py [--cases resnet18-flow mobilenet-flow ...] [--rounds 15]
        [--batch 8] [--batches 4] [--threads 2] [--workers 0]
        [--json build/benchmarks/training.json]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from flowsight import config, flow_packing, networks, packing, training
from flowsight.datasets import clips, sample
from flowsight.rows import RowParams
from flowsight.video import pack

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("FLOWSIGHT_SHARED", ROOT.parent / "shared")) / "data"
STACK_LENGTH = 5
CASES = {
    "resnet18-flow": ("resnet18", "flow", 224),
    "resnet18-rgb": ("resnet18", "rgb", 224),
    "mobilenet-flow": ("mobilenet_v3_small", "flow", 112),
    "mobilenet-rgb": ("mobilenet_v3_small", "rgb", 112),
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=8, help="images of a step")
    parser.add_argument("--batches", type=int, default=4, help="steps of an epoch")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--workers", type=int, default=None, help="FLOWSIGHT_WORKERS")
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--size", type=int, nargs=2, default=(340, 256), help="of stored frames")
    parser.add_argument("--json", type=Path, default=ROOT / "build/benchmarks/training.json")
    args = parser.parse_args()
    if args.workers is not None:
        os.environ["FLOWSIGHT_WORKERS"] = str(args.workers)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FLOWSIGHT_SCRATCH"] = f"{folder}/scratch"
        data = make_data(Path(folder), args.clips, tuple(args.size))
        report: dict[str, Any] = conditions(args, data)
        report["cases"] = {name: measure(name, data, args) for name in args.cases}
    report["load_after"] = os.getloadavg()
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")
    show(report)


def conditions(args: argparse.Namespace, data: Data) -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "source": data.source,
        "frames_px": list(args.size),
        "batch": args.batch,
        "stack_length": STACK_LENGTH,
        "threads": args.threads,
        "workers": clips.num_workers(),
        "precision": args.precision,
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
        "load_before": os.getloadavg(),
    }


@dataclasses.dataclass(frozen=True)
class Data:
    """Packs and tables of some clips, as the stages make them."""

    source: str
    manifest: Path
    split: Path
    packs: dict[str, Path]
    """Modality -> folder."""


def make_data(folder: Path, count: int, size: tuple[int, int]) -> Data:
    """JPEG packs of some videos; every clip is for training."""
    source, videos = find_videos(folder, count)
    rows = []
    for index, video in enumerate(videos):
        clip_id = f"{video.parent.name}/{video.stem}"
        frames, flow = (folder / kind / "0" / f"{clip_id}.zip" for kind in ("rgb", "flow"))
        packing.frames_of_video(video, frames, clip_id=clip_id, size=size, quality=95)
        # the fastest method: what is measured is how its JPEGs are read
        flow_packing.flow_of_video(video, flow, method="dis", size=size, quality=95)
        label = ("even", "odd")[index % 2]
        rows.append((clip_id, label, pack.num_frames(frames), 0, "train"))
    table = pd.DataFrame(rows, columns=["clip_id", "label", "num_frames", "shard", "subset"])
    table.to_csv(folder / "clips.csv", index=False)
    pd.DataFrame({"index": [0, 1], "label": ["even", "odd"]}).to_csv(
        folder / "classes.csv", index=False
    )
    table[["clip_id", "subset"]].to_csv(folder / "1.csv", index=False)
    packs = {kind: folder / kind for kind in ("rgb", "flow")}
    return Data(source, folder, folder / "1.csv", packs)


def find_videos(folder: Path, count: int) -> tuple[str, list[Path]]:
    """Real clips, evenly chosen, or those of the generated sample."""
    found, source = sorted((SHARED / "ucf101/videos").glob("*/*.avi")), "ucf101"
    if not found:
        settings = dataclasses.asdict(config.load(ROOT / "params.yaml").sample)
        sample.render(*(folder / name for name in ("sample", "scenes", "images")), **settings)
        found, source = sorted((folder / "sample").rglob("*.avi")), "sample"
    return source, found[:: max(1, len(found) // count)][:count]


def make_row(backbone: str, modality: str, crop_px: int, args: argparse.Namespace) -> RowParams:
    """A row as `params.yaml` has it, with another network and size."""
    row = config.load(ROOT / "params.yaml").rows["spatial" if modality == "rgb" else "temporal"]
    flow = modality == "flow"
    return dataclasses.replace(
        row,
        network=dataclasses.replace(
            row.network, backbone=backbone, weights=None, map_channel=False, dropout=0.5
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
            samples_per_epoch=-(-args.batch * args.batches // args.clips),
            optimizer="sgd",
            lr=1e-3,
            schedule="constant",
            patience=None,
            precision=args.precision,
        ),
    )


class Turns:
    """In place of the loader: even epochs read clips, odd ones get the batches read before.

    An epoch's time is that from its first request to its end: reading and training.
    """

    def __init__(self, loader: Any, after_pair: Callable[[Sequence[Any]], None]) -> None:
        self.loader, self.after_pair = loader, after_pair
        self.ready: list[Any] = []
        self.reads = True
        self.begun = self.waited = 0.0
        self.sec: dict[str, list[float]] = {"clips": [], "memory": [], "waiting": []}

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        self.begun, self.waited = time.perf_counter(), 0.0
        if not self.reads:
            yield from self.ready
            return
        self.ready, source = [], iter(self.loader)
        for _ in range(len(self)):
            asked = time.perf_counter()
            self.ready.append(next(source))
            self.waited += time.perf_counter() - asked
            yield self.ready[-1]

    def epoch_done(self) -> None:
        """To be called at an epoch's end."""
        self.sec["clips" if self.reads else "memory"].append(time.perf_counter() - self.begun)
        if self.reads:
            self.sec["waiting"].append(self.waited)
        else:
            self.after_pair(self.ready)
        self.reads = not self.reads


def measure(name: str, data: Data, args: argparse.Namespace) -> dict[str, Any]:
    """Images a second of a case: read, from memory, in a plain loop."""
    backbone, modality, crop_px = CASES[name]
    row = make_row(backbone, modality, crop_px, args)
    bare, bare_sec = networks.build(row, 2), []
    turns: list[Turns] = []

    def plain_turn(batches: Sequence[Any]) -> None:
        start = time.perf_counter()
        plain_loop(bare, batches, args.precision)
        bare_sec.append(time.perf_counter() - start)

    def in_turns(*given: Any) -> Turns:
        turns.append(Turns(clips.loader(*given), plain_turn))
        return turns[0]

    with mock.patch.object(training, "loader", in_turns):
        training.fit(
            row=row,
            row_name=name,
            params=dataclasses.replace(config.load(ROOT / "params.yaml"), threads=args.threads),
            manifest=data.manifest,
            split=data.split,
            packs=data.packs[modality],
            scratch_key=f"benchmark/{name}",
            log=lambda metrics, step: turns[0].epoch_done(),
        )
    return summary(turns[0], bare_sec, args.batch)


def plain_loop(network: nn.Module, batches: Sequence[Any], precision: str) -> None:
    """Forward, backward, step: what the network itself costs."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    halves = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
    for x, label, _ in batches:
        inputs = x.flatten(0, 1).to(device, non_blocking=True)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, halves.get(precision), enabled=precision in halves):
            logits = network(inputs)
        loss = nn.functional.cross_entropy(logits.float(), label.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    loss.item()  # a GPU ends here


def summary(turns: Turns, bare_sec: list[float], batch: int) -> dict[str, Any]:
    """Medians over the pairs of epochs; the first pair warms up."""
    images = batch * len(turns)
    sec = {name: values[1:] for name, values in (turns.sec | {"plain": bare_sec}).items()}
    costs = [1 - m / c for c, m in zip(sec["clips"], sec["memory"], strict=True)]
    per_image = {name: statistics.median(values) / images for name, values in sec.items()}
    quartiles = statistics.quantiles(costs, n=4) if len(costs) > 1 else [costs[0]] * 3
    return {
        "images_per_sec": {n: round(1 / per_image[n], 1) for n in ("clips", "memory", "plain")},
        "loader_cost": round(statistics.median(costs), 4),
        "loader_cost_quartiles": [round(quartiles[0], 4), round(quartiles[2], 4)],
        "waiting_ms_per_image": round(1e3 * per_image["waiting"], 2),
        "to_plain": round(per_image["plain"] / per_image["clips"], 3),
    }


def show(report: dict[str, Any]) -> None:
    """A table, then the whole as JSON."""
    columns = ("case", "clips img/s", "memory img/s", "plain img/s", "loader costs", "quartiles")
    table = Table(*columns, "waits ms/img", "of plain")
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
        )
    Console().print(table)
    print(json.dumps(report, sort_keys=True))


if __name__ == "__main__":
    main()
