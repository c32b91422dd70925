"""A training's course as pure functions: learning rate, when it ends, how batches are cut."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from flowsight.errors import InputError
from flowsight.files import atomic_file
from flowsight.params.training import TrainParams


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One line of the history."""

    epoch: int
    """Counted from 1."""
    lr: float
    train_loss: float
    """Mean over the epoch, in training mode: with dropout, augmentation and moving weights."""
    train_accuracy: float
    val_loss: float | None
    """None where the split has no validation clips."""
    val_accuracy: float | None


def write_history(history: Sequence[Any], path: Path) -> None:
    """Write the history as CSV, floats with six decimals (the learning rate to six digits).

    Args:
        history: a dataclass an epoch, `Epoch` or a system's own; at least one.
        path: the file.
    """
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(history[0]))
        for epoch in history:
            writer.writerow(_text(name, value) for name, value in asdict(epoch).items())


def _text(name: str, value: float | int | None) -> str:
    if value is None:
        return ""
    if name == "epoch":
        return str(value)
    return f"{value:.6g}" if name == "lr" else f"{value:.6f}"


def learning_rate(params: TrainParams, epoch: int) -> float:
    """Learning rate of an epoch.

    Args:
        params: `schedule` is constant, step (times gamma after each milestone), cosine (from lr in
            the first epoch towards 0 after the last) or poly (the share of epochs to come, to the
            power of gamma).
        epoch: counted from 0.
    """
    if params.schedule == "step":
        return params.lr * params.gamma ** sum(epoch >= stone for stone in params.milestones)
    if params.schedule == "poly":
        return params.lr * (1 - epoch / params.epochs) ** params.gamma
    if params.schedule == "cosine":
        return params.lr * (1 + math.cos(math.pi * epoch / params.epochs)) / 2
    return params.lr


def is_over(history: Sequence[Epoch], params: TrainParams, num_epochs: int | None = None) -> bool:
    """Whether training ends after these epochs: all done, or no better validation loss for long.

    Args:
        history: the epochs so far.
        params: the row's.
        num_epochs: how many are to be done; None: the row's.
    """
    if len(history) >= (params.epochs if num_epochs is None else num_epochs):
        return True
    losses = [epoch.val_loss for epoch in history if epoch.val_loss is not None]
    if params.patience is None or not losses:
        return False
    return len(losses) - 1 - losses.index(min(losses)) >= params.patience


def is_best(history: Sequence[Epoch]) -> bool:
    """Whether the last epoch has a lower validation loss than each before it."""
    losses = [epoch.val_loss for epoch in history if epoch.val_loss is not None]
    return bool(losses) and all(losses[-1] < loss for loss in losses[:-1])


def check_finite(epoch: Epoch, row_name: str) -> None:
    """Refuse a training that has diverged.

    Raises:
        InputError: a loss is NaN or infinite.
    """
    for name, loss in (("training", epoch.train_loss), ("validation", epoch.val_loss)):
        if loss is not None and not math.isfinite(loss):
            raise InputError(
                f"expected a finite {name} loss, got {loss} in epoch {epoch.epoch} of {row_name}; "
                f"lower rows.{row_name}.train.lr (it was {epoch.lr:g}) or use precision 32-true"
            )


def micro_batch(params: TrainParams) -> int:
    """Items that a device takes at once: `batch_size`, or less where the machine says so.

    Raises:
        InputError: `FLOWSIGHT_MICRO_BATCH` is not a positive number.
    """
    share = -(-params.batch_size // params.devices)
    text = os.environ.get("FLOWSIGHT_MICRO_BATCH", "")
    if not text:
        return share
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"expected FLOWSIGHT_MICRO_BATCH as a positive number, got {text!r}")
    return min(share, int(text))


def is_bit_reproducible(params: TrainParams) -> bool:
    """False where the machine cuts the batches: sums, and batch norm, then differ a little."""
    return micro_batch(params) == -(-params.batch_size // params.devices)
