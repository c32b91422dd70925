"""What a system says of its input, and the same as plain values, lines of a table, pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from flowsight.errors import InputError
from flowsight.serving.memory import ClipInMemory

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]
Update = Callable[[str, int, int], None]
"""Called with what is being done, and how many frames of how many (0: unknown)."""

OUTPUTS: Mapping[str, str] = {
    "label": "string",
    "score": "double",
    "classes": "string[]",
    "scores": "double[]",
    "probabilities": "any",
    "num_frames": "long",
    "duration_sec": "double",
    "attention": "any",
}
"""Columns in a server's answer of a system that tells classes, see `systems.System`."""


class Result(Protocol):
    """What a system says of one input."""

    def named(self, name: str, seconds: dict[str, float]) -> Self:
        """The same with the input's name and the time spent on each part."""

    def record(self, count: int) -> dict[str, Any]:
        """Plain values: the input's name, the system's columns, seconds.

        Args:
            count: classes to tell, where there are classes.
        """

    def requested(self) -> dict[str, Any]:
        """Plain values of what was asked for beside: `REQUEST` -> it, or None."""

    def lines(self, count: int) -> list[tuple[str, ...]]:
        """Lines of a table, as `System.COLUMNS` says."""

    def light(self) -> Self:
        """The same without what only films and requests need."""

    def save_masks(self, folder: Path, name: str) -> Path:
        """Write its masks to a folder.

        Raises:
            InputError: it has none.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """What a system says of a video. K classes, T frames."""

    classes: tuple[str, ...]
    probs: dict[str, Floats]
    """Name -> (K,), sums to 1: `spatial`, `temporal` and `fused`, or `network`."""
    main: str
    """The one of `probs` that decides."""
    logits: dict[str, npt.NDArray[np.float32]]
    """(K,) of each network."""
    num_frames: int
    duration_sec: float
    video: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time spent on decode, jpeg, flow, attention, scores, and in all (`total`)."""
    attention: dict[str, Bytes] | None = None
    """Name -> (T, h, w) maps of where a network looks."""
    titles: Mapping[str, str] = field(default_factory=dict)
    """Over a map's picture; where there is none, the best class and its share."""
    clip: ClipInMemory | None = None
    """The frames, where maps were asked for."""

    def named(self, name: str, seconds: dict[str, float]) -> Self:
        """See `Result`."""
        return replace(self, video=name, seconds=seconds)

    def requested(self) -> dict[str, Any]:
        """Attention of a few frames."""
        from flowsight.serving import shown

        return {"attention": None if self.attention is None else shown.attention(self)}

    def light(self) -> Self:
        """Without frames and maps."""
        return replace(self, attention=None, clip=None)

    def save_masks(self, folder: Path, name: str) -> Path:
        """There are none.

        Raises:
            InputError: always.
        """
        raise InputError("expected a model that finds masks for --masks, got a system of classes")

    @property
    def label(self) -> str:
        """Best class; among equals the first."""
        return self.top(1)[0][0]

    def top(self, count: int, name: str | None = None) -> list[tuple[str, float]]:
        """The best classes and their probabilities, best first; of `main` or of another."""
        probs = self.probs[name or self.main]
        best = np.argsort(-probs, kind="stable")[:count]
        return [(self.classes[k], float(probs[k])) for k in best]

    def record(self, count: int) -> dict[str, Any]:
        """Plain values: the best classes, all probabilities, and times."""
        best = self.top(count)
        return {
            "video": self.video,
            "label": self.label,
            "score": best[0][1],
            "classes": [name for name, _ in best],
            "scores": [score for _, score in best],
            "probabilities": {
                name: dict(zip(self.classes, values.tolist(), strict=True))
                for name, values in self.probs.items()
            },
            "num_frames": self.num_frames,
            "duration_sec": round(self.duration_sec, 6),
            "seconds": {part: round(sec, 4) for part, sec in self.seconds.items()},
        }

    def lines(self, count: int) -> list[tuple[str, ...]]:
        """Of a table: a class and its share, by `main` first, then by the others in their order."""
        names = [self.main, *(name for name in self.probs if name != self.main)]
        found = []
        for label, _ in self.top(count):
            k = self.classes.index(label)
            found.append((label, *(f"{self.probs[name][k]:.1%}" for name in names)))
        return found

    def panels(self) -> list[tuple[str, str]]:
        """Maps to show side by side, each with its title."""
        label, score = self.top(1)[0]
        best = f"{label} {score:.0%}"
        return [(name, self.titles.get(name, best)) for name in self.attention or {}]


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Note how long it took."""
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start
