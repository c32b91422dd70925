"""Progress of a training on stderr: epochs done, losses, time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

_LINE_EVERY_SEC = 10.0


class EpochProgress:
    """A bar on a terminal; elsewhere a line every ten seconds at most, and one at the end.

    Args:
        description: two or three words.
        num_epochs: of the whole training.
        num_batches: in an epoch.
        first_epoch: epochs already done when a training goes on.
    """

    def __init__(
        self, description: str, num_epochs: int, num_batches: int, first_epoch: int
    ) -> None:
        self._description = description
        self._num_epochs = num_epochs
        self._done = self._first = first_epoch
        self._start = self._last_line = time.monotonic()
        self._bar, self._task = _start_bar(description, num_epochs * num_batches)
        if self._bar is not None:
            self._bar.update(self._task, completed=first_epoch * num_batches)
        elif first_epoch:
            self._print(f"goes on after epoch {first_epoch}")

    def batch_done(self) -> None:
        """One more batch."""
        if self._bar is not None:
            self._bar.advance(self._task)

    def epoch_done(self, measured: Mapping[str, float | None], *, last: bool) -> None:
        """One more epoch.

        Args:
            measured: train_loss, train_accuracy, val_loss, val_accuracy; None is left out.
            last: whether training ends here.
        """
        self._done += 1
        numbers = ", ".join(
            f"{name.replace('_', ' ')} {value:.3f}"
            for name, value in measured.items()
            if value is not None and name.startswith(("train_", "val_"))
        )
        if self._bar is not None:
            self._bar.update(self._task, description=f"{self._description}: {numbers}")
        now = time.monotonic()
        if self._bar is None and (last or now - self._last_line >= _LINE_EVERY_SEC):
            self._last_line = now
            left = (now - self._start) / (self._done - self._first)
            left *= 0 if last else self._num_epochs - self._done
            ending = "done" if last else f"{left:.0f} s left"
            self._print(f"epoch {self._done}/{self._num_epochs}, {numbers}, {ending}")

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()

    def _print(self, text: str) -> None:
        print(f"{self._description}: {text}", file=sys.stderr, flush=True)


def _start_bar(description: str, total: int) -> tuple[Any, Any]:
    if not sys.stderr.isatty():
        return None, None
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        TextColumn("left, {task.description}"),
    )
    bar = Progress(*columns, console=Console(stderr=True))
    bar.start()
    return bar, bar.add_task(description, total=total)
