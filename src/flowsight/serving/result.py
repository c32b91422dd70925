"""What a system says of a video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flowsight.serving.memory import ClipInMemory

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """What a system says of a video. K classes, T frames."""

    video: str
    classes: tuple[str, ...]
    probs: dict[str, Floats]
    """`spatial`, `temporal`, `fused` -> (K,), sums to 1."""
    logits: dict[str, npt.NDArray[np.float32]]
    """`spatial`, `temporal` -> (K,)."""
    num_frames: int
    duration_sec: float
    seconds: dict[str, float]
    """Time spent on decode, jpeg, flow, attention, scores, and in all (`total`)."""
    attention: dict[str, Bytes] | None = None
    """`spatial`, `temporal` -> (T, h, w) maps that the stream's phase-1 network gave."""
    clip: ClipInMemory | None = None
    """The frames, where maps were asked for."""

    @property
    def label(self) -> str:
        """Best class; among equals the first."""
        return self.top(1)[0][0]

    def top(self, count: int, stream: str = "fused") -> list[tuple[str, float]]:
        """The best classes and their probabilities, best first."""
        best = np.argsort(-self.probs[stream], kind="stable")[:count]
        return [(self.classes[k], float(self.probs[stream][k])) for k in best]


def as_record(prediction: Prediction, count: int) -> Mapping[str, Any]:
    """Plain values: the best classes, all probabilities of every stream, and times."""
    best = prediction.top(count)
    return {
        "video": prediction.video,
        "label": prediction.label,
        "classes": [name for name, _ in best],
        "scores": [score for _, score in best],
        "probabilities": {
            stream: dict(zip(prediction.classes, values.tolist(), strict=True))
            for stream, values in prediction.probs.items()
        },
        "num_frames": prediction.num_frames,
        "duration_sec": round(prediction.duration_sec, 6),
        "seconds": {part: round(sec, 4) for part, sec in prediction.seconds.items()},
    }
