"""Clip classification: cross entropy on the mean of a clip's segments.

Axes: B batch, S segments, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from flowsight.classifiers import networks
from flowsight.errors import InputError
from flowsight.params.training import TrainParams


def build(
    network: nn.Module,
    *,
    num_classes: int,
    params: TrainParams,
    weight: Callable[[int], float] | None = None,
) -> Classification:
    """Make the task.

    Args:
        network: (B, C, H, W), or (B, C, T, H, W) for clips -> logits (B, K).
        num_classes: K, at least 2.
        params: the optimiser and its numbers.
        weight: factor on the summed loss of the batch with this index in its epoch; None: the
            mean over the batch.

    Raises:
        InputError: fewer than two classes.
    """
    if num_classes < 2:
        raise InputError(f"expected at least two classes to tell apart, got {num_classes}")
    return Classification(network, num_classes=num_classes, params=params, weight=weight)


class Classification(LightningModule):
    """Batches are (x (B, S, C, H, W) or (B, S, C, T, H, W), label (B,), index (B,))."""

    def __init__(
        self,
        network: nn.Module,
        *,
        num_classes: int,
        params: TrainParams,
        weight: Callable[[int], float] | None,
    ) -> None:
        super().__init__()
        self.network = network
        self.train_params = params
        self.weight = weight
        # by default torchmetrics leaves NaN out of a mean; a diverged training must show
        self.train_loss, self.val_loss = (MeanMetric(nan_strategy="disable") for _ in range(2))
        self.train_accuracy, self.val_accuracy = (
            MulticlassAccuracy(num_classes, average="micro", validate_args=False) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Consensus of the segments: (B, S, C, [T,] H, W) -> logits (B, K), their mean over S."""
        flat = x.flatten(0, 1)  # (B * S, C, [T,] H, W)
        flat = flat.contiguous(memory_format=networks.memory_format(self.network))
        logits: Tensor = self.network(flat)  # (B * S, K)
        return logits.unflatten(0, x.shape[:2]).mean(dim=1)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of a batch, to be minimised."""
        losses = self._measure(batch, "train")
        return losses.mean() if self.weight is None else losses.sum() * self.weight(batch_idx)

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        """Only measure."""
        self._measure(batch, "val")

    def _measure(self, batch: tuple[Tensor, Tensor, Tensor], subset: str) -> Tensor:
        x, label, _ = batch
        logits = self(x).float()  # the loss in full precision, also when the network is not
        losses = F.cross_entropy(logits, label, reduction="none")
        loss, accuracy = self._measures(subset)
        loss.update(losses.detach())
        accuracy.update(logits.detach(), label)
        return losses

    def _measures(self, subset: str) -> tuple[MeanMetric, MulticlassAccuracy]:
        if subset == "train":
            return self.train_loss, self.train_accuracy
        return self.val_loss, self.val_accuracy

    def measured(self, subset: str) -> tuple[float, float]:
        """Mean loss and accuracy since the last call, over all devices.

        `train` is measured while training: with dropout and augmentation, each batch by the
        weights of its moment.
        """
        loss, accuracy = self._measures(subset)
        values = loss.compute().item(), accuracy.compute().item()
        loss.reset()
        accuracy.reset()
        return values

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser by name; the learning rate is set anew at each epoch's start."""
        params = self.train_params
        common: dict[str, Any] = {"lr": params.lr, "weight_decay": params.weight_decay}
        if params.optimizer == "sgd":
            return torch.optim.SGD(
                self.parameters(), momentum=params.momentum, nesterov=params.nesterov, **common
            )
        kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        return kinds[params.optimizer](self.parameters(), **common)
