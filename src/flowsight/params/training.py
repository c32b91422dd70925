"""How a network is trained: the parameters `train` of a row."""

from __future__ import annotations

from dataclasses import dataclass

from flowsight.params.schema import check, check_choice


@dataclass(frozen=True, kw_only=True)
class TrainParams:
    """Optimisation."""

    epochs: int
    samples_per_epoch: int
    """How often each clip is drawn in an epoch."""
    batch_size: int
    """The optimiser's batch; the machine may cut it into micro-batches."""
    accumulate: int
    """Batches whose gradients are summed into one step."""
    optimizer: str
    lr: float
    momentum: float
    weight_decay: float
    schedule: str
    """`constant`, `step` (times gamma after each milestone), `cosine` or `poly` (to the power of
    gamma)."""
    milestones: tuple[int, ...]
    gamma: float
    patience: int | None
    """Epochs without a better validation loss before stopping; null: all epochs."""
    precision: str
    devices: int
    loss: str | None = None
    """Of systems that have a choice; null: the only one."""
    nesterov: bool = False
    """Nesterov's momentum, for sgd."""

    def __post_init__(self) -> None:
        for name in ("epochs", "samples_per_epoch", "batch_size", "accumulate", "devices"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1")
        check_choice("optimizer", self.optimizer, ("sgd", "adam", "adamw"))
        check_choice("schedule", self.schedule, ("constant", "step", "cosine", "poly"))
        check_choice("precision", self.precision, ("32-true", "16-mixed", "bf16-mixed"))
        check(self.lr > 0, "lr must be positive")
        check(0 <= self.momentum < 1, "momentum must be in [0, 1)")
        check(self.weight_decay >= 0, "weight_decay must not be negative")
        sgd = self.optimizer == "sgd" and self.momentum > 0
        check(sgd or not self.nesterov, "nesterov needs sgd with momentum")
