"""Salient pixels against the others: cross entropy of an image's pixels, summed or averaged.

The original FCN is trained at batch size 1 with the *sum* over an image's pixels, SGD with a
learning rate of 1e-14, momentum 0.99 and weight decay w. For images of N pixels that is the *mean*
at N times the rate and a weight decay of w / N (the decay is added to the gradient before the rate
multiplies both): 1e-14 on 400 x 300 px is 1.2e-9.

Biases learn at twice the rate and without decay under SGD, as the original has it.

Axes: B batch, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics import MeanMetric

from flowsight.classifiers import networks
from flowsight.params.training import TrainParams
from flowsight.systems.saliency.network.losses import VOID, pixel_losses


def build(
    network: nn.Module,
    *,
    loss: str,
    params: TrainParams,
    weight: Callable[[int], float] | None = None,
) -> Saliency:
    """Make the task.

    Args:
        network: (B, 3, H, W) -> scores (B, 2, H, W).
        loss: of an image: `sum` or `mean` over its pixels.
        params: the optimiser and its numbers.
        weight: factor on the images' summed loss of the batch with this index in its epoch; None:
            the mean over the batch.
    """
    return Saliency(network, loss=loss, params=params, weight=weight)


class Saliency(LightningModule):
    """Batches are (x (B, 3, H, W), target (B, H, W) of 0, 1 and `VOID`, index (B,))."""

    def __init__(
        self,
        network: nn.Module,
        *,
        loss: str,
        params: TrainParams,
        weight: Callable[[int], float] | None,
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.train_params = params
        self.weight = weight
        # by default torchmetrics leaves NaN out of a mean; a diverged training must show
        self.train_loss, self.val_loss = (MeanMetric(nan_strategy="disable") for _ in range(2))
        self.train_accuracy, self.val_accuracy = (
            MeanMetric(nan_strategy="disable") for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scores: (B, 3, H, W) -> (B, 2, H, W)."""
        x = x.contiguous(memory_format=networks.memory_format(self.network))
        scores: Tensor = self.network(x)
        return scores

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """Loss of a batch, to be minimised."""
        losses = self._measure(batch, "train")
        return losses.mean() if self.weight is None else losses.sum() * self.weight(batch_idx)

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Only measure."""
        self._measure(batch, "val")

    def _measure(self, batch: Sequence[Tensor], subset: str) -> Tensor:
        x, target, _ = batch
        scores = self(x).float()  # the loss in full precision, also when the network is not
        sums, counts = pixel_losses(scores, target)
        means = sums / counts
        right = ((scores.detach().argmax(dim=1) == target) & (target != VOID)).flatten(1).sum(dim=1)
        loss, accuracy = self._measures(subset)
        loss.update(means.detach())
        accuracy.update(right / counts)
        return sums if self.loss == "sum" else means

    def measured(self, subset: str) -> tuple[float, float]:
        """Mean loss of a pixel and share of pixels that are right, since the last call.

        Each image counts alike, whatever its size. `train` is measured while training.
        """
        loss, accuracy = self._measures(subset)
        values = loss.compute().item(), accuracy.compute().item()
        loss.reset()
        accuracy.reset()
        return values

    def _measures(self, subset: str) -> tuple[MeanMetric, MeanMetric]:
        if subset == "train":
            return self.train_loss, self.train_accuracy
        return self.val_loss, self.val_accuracy

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser by name; the learning rate is set anew at each epoch's start.

        A group's `lr_factor` multiplies it.
        """
        params = self.train_params
        trained = [(n, p) for n, p in self.named_parameters() if p.requires_grad]
        if params.optimizer != "sgd":
            kinds: dict[str, Any] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
            optimizer: torch.optim.Optimizer = kinds[params.optimizer](
                [p for _, p in trained], lr=params.lr, weight_decay=params.weight_decay
            )
            return optimizer
        biases = [p for n, p in trained if n.endswith(".bias")]
        weights = [p for n, p in trained if not n.endswith(".bias")]
        groups = [
            {"params": weights, "weight_decay": params.weight_decay, "lr_factor": 1.0},
            {"params": biases, "weight_decay": 0.0, "lr_factor": 2.0},
        ]
        return torch.optim.SGD(
            groups, lr=params.lr, momentum=params.momentum, nesterov=params.nesterov
        )
