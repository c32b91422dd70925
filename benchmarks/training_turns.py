"""What `benchmarks/training.py` puts in place of the loader, and beside the training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from flowsight.classifiers import networks
from flowsight.classifiers.task import Classification

KEPT = 8
"""Batches that memory epochs take in turn. Were all kept, a GPU's loader would pin new memory for
each, milliseconds of the driver's time, where a real one finds its old ones free again."""
HALVES = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


class Turns:
    """In place of the loader: even epochs read clips, odd ones get some of the same batches again.

    An epoch's time is that from its first request to its end: reading and training.
    """

    def __init__(self, loader: Any, after_pair: Callable[[Sequence[Any]], None]) -> None:
        self.loader, self.after_pair = loader, after_pair
        self.ready: list[Any] = []
        self.reads = True
        self.begun = self.waited = 0.0
        self.sec: dict[str, list[float]] = {"clips": [], "memory": [], "waiting": []}
        self.images = 0
        """Of an epoch."""
        self.peak: dict[str, float] = {}
        """GB of the GPU's memory in the first epoch."""

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        self.begun, self.waited = time.perf_counter(), 0.0
        if not self.reads:
            yield from islice(cycle(self.ready), len(self))
            return
        self.ready, self.images, source = [], 0, iter(self.loader)
        for _ in range(len(self)):
            asked = time.perf_counter()
            batch = next(source)
            self.waited += time.perf_counter() - asked
            self.images += len(batch[1])
            if len(self.ready) < KEPT:
                self.ready.append(batch)
            yield batch

    def epoch_done(self) -> None:
        """To be called at an epoch's end, when its loss is known: a GPU is done then."""
        self.sec["clips" if self.reads else "memory"].append(time.perf_counter() - self.begun)
        if self.reads:
            self.sec["waiting"].append(self.waited)
            self.peak = self.peak or peak_memory()
        else:
            self.after_pair(list(islice(cycle(self.ready), len(self))))
        self.reads = not self.reads


def peak_memory() -> dict[str, float]:
    """GB that tensors took on the GPU at most, and that torch held for them; none without one."""
    if not torch.cuda.is_available():
        return {}
    cuda = torch.cuda
    used = {"allocated": cuda.max_memory_allocated(), "reserved": cuda.max_memory_reserved()}
    return {name: round(size / 1e9, 2) for name, size in used.items()}


@contextmanager
def recorded_losses(wanted: Callable[[], bool]) -> Iterator[list[Tensor]]:
    """The loss of each training step for which `wanted()` holds, left on its device."""
    losses: list[Tensor] = []
    step = Classification.training_step

    def recording(task: Classification, batch: Any, batch_idx: int) -> Tensor:
        loss = step(task, batch, batch_idx)
        if wanted():
            losses.append(loss.detach())
        return loss

    with mock.patch.object(Classification, "training_step", recording):
        yield losses


def plain_loop(network: nn.Module, batches: Sequence[Any], precision: str) -> None:
    """Forward, backward, step: what the network itself costs."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device, memory_format=networks.memory_format(network)).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    for x, label, _ in batches:
        inputs = x.flatten(0, 1).to(device, non_blocking=True)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, HALVES.get(precision), enabled=precision in HALVES):
            logits = network(inputs)
        loss = nn.functional.cross_entropy(logits.float(), label.to(device, non_blocking=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    loss.item()  # a GPU ends here
