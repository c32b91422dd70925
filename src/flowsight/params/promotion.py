"""What a model must show before it serves: the parameters `promote` of a system."""

from __future__ import annotations

from dataclasses import dataclass

from flowsight.params.schema import check


@dataclass(frozen=True, kw_only=True)
class PromotionParams:
    """A clean data gate and no leakage always count; the system's `judge` says what is measured."""

    min_measure: float = 0.5
    """Least value of the measure that the gate compares, in [0, 1]."""
    max_loss: float = 0.02
    """What it may lose of that measure against the champion, on the same items ..."""
    probability: float = 0.95
    """... with this probability at least, by a paired bootstrap."""
    bootstrap_samples: int = 2000
    block_items: int = 1
    """Consecutive items of a group that are drawn together at least, where neighbours say nearly
    the same (frames of a video)."""
    max_latency_sec: float | None = 30.0
    """Median for a short video or an image, on the machine that promotes; null: not measured."""
    max_size_mb: float | None = 600.0
    """Of the model's weights, in 10^6 bytes; null: any."""

    def __post_init__(self) -> None:
        for name in ("min_measure", "max_loss", "probability"):
            check(0 <= getattr(self, name) <= 1, f"{name} must be in [0, 1]")
        check(self.block_items >= 1, "block_items must be at least 1")
        check(self.bootstrap_samples >= 100, "bootstrap_samples must be at least 100")
        for name in ("max_latency_sec", "max_size_mb"):
            value = getattr(self, name)
            check(value is None or value > 0, f"{name} must be positive or null")
