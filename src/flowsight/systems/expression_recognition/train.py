"""Training on faces: from scratch, or a transfer in two steps, each a row of its own.

Step 1 (`start.frozen`) trains the classifier on convolutions that stay as they are; step 2
(`start.init`) goes on from it with all layers, the convolutions at `train.features_lr` times the
rate. Two rows, so each is resumed, tracked and scored as any other, and what step 2 adds is seen.

Axes: B batch, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from flowsight.batches.clips import num_workers
from flowsight.classifiers import networks
from flowsight.contract import Job, Trained
from flowsight.datasets.images.labelled import Labelled, load_labelled
from flowsight.nn import checkpoint, seeding
from flowsight.systems.expression_recognition import network as models
from flowsight.systems.expression_recognition.data import FaceDataset, as_read
from flowsight.systems.expression_recognition.network import Expressions
from flowsight.systems.expression_recognition.params import Row, Train
from flowsight.training import loop
from flowsight.training.batches import EpochBatches
from flowsight.training.loop import Work


def train(job: Job) -> Trained:
    """Train a row on the training pictures of a split.

    Args:
        job: folders `raw` and `items` are read, and `start`, the checkpoint of `row.start.init`.

    Raises:
        InputError: no pictures, weights that do not fit, a loss that is not finite.
        ResourceError: the device's memory does not hold a batch.
    """
    row: Row = job.row
    found, classes = load_labelled(job.folders["raw"], job.folders["items"], job.split)
    where = job.folders["items"] / "splits" / f"{job.split}.csv"
    with seeding.reproducible(job.params.threads):
        seeding.seed_everything(job.params.seed)
        network = begin(row, len(classes), job.start)
        state, history = loop.fit_network(
            network,
            _work(found, len(classes), row, job.params.seed, where),
            train=row.train,
            row_name=job.row_name,
            seed=job.params.seed,
            scratch_key=job.scratch_key,
            log=job.log,
        )
    return Trained(state=state, history=history)


def begin(row: Row, num_classes: int, start: Path | None) -> Expressions:
    """The row's network as its training finds it.

    Raises:
        InputError: weights that are missing or of another network.
    """
    backbone = row.network.backbone
    network = models.build(
        backbone=backbone,
        num_classes=num_classes,
        width=row.network.width,
        dropout=row.network.dropout,
        pretrained=networks.named_weights(row.start.weights, backbone) if start is None else None,
    )
    if start is not None:
        checkpoint.restore(network, start / "model.pt")
    if row.start.frozen:
        network.freeze()
    return network


def class_weights(labels: Sequence[int], num_classes: int, kind: str) -> Tensor:
    """What an item of each class counts.

    Args:
        labels: of the training items.
        num_classes: K.
        kind: `none`, or `inverse_root`: 1 / sqrt(n), divided by its mean over the items, so that
            the learning rate keeps its meaning.

    Returns:
        (K,) float32; 0 for a class without items.
    """
    counts = torch.bincount(torch.tensor(labels, dtype=torch.long), minlength=num_classes).double()
    if kind == "none":
        return torch.ones(num_classes)
    weights = torch.where(counts > 0, counts.clamp(min=1).rsqrt(), 0.0)
    return (weights * counts.sum() / (weights * counts).sum()).float()


def _work(items: Sequence[Labelled], num_classes: int, row: Row, seed: int, where: Path) -> Work:
    subsets = {subset: [i for i in items if i.subset == subset] for subset in ("train", "val")}
    labels = [item.label for item in subsets["train"]]

    def load(batches: EpochBatches, train: bool) -> DataLoader[Any]:
        own, channels = subsets["train" if train else "val"], row.network.channels
        return DataLoader(
            FaceDataset(own, row.input, channels=channels, train=train, seed=seed),
            batch_sampler=batches,
            collate_fn=as_read,
            num_workers=num_workers(),
            persistent_workers=num_workers() > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # its own, as in `batches.clips.loader`
        )

    def task(network: nn.Module, weight: Callable[[int], float]) -> Any:
        weights = class_weights(labels, num_classes, row.train.class_weights)
        return ExpressionTask(network, params=row.train, class_weights=weights, weight=weight)

    return Work(
        num_train=len(subsets["train"]),
        num_val=len(subsets["val"]),
        load=load,
        task=task,
        where=where,
    )


class ExpressionTask(LightningModule):
    """Weighted cross entropy; batches are (x (B, C, H, W), label (B,), index (B,)).

    Args:
        network: (B, C, H, W) -> logits (B, K).
        params: the optimiser and its numbers.
        class_weights: (K,), see `class_weights`.
        weight: factor on the summed loss of the batch with this index in its epoch; None: the mean
            over the batch.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        params: Train,
        class_weights: Tensor,
        weight: Callable[[int], float] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.train_params, self.weight = network, params, weight
        self.register_buffer("class_weights", class_weights)
        # by default torchmetrics leaves NaN out of a mean; a diverged training must show
        self.train_loss, self.val_loss = (MeanMetric(nan_strategy="disable") for _ in range(2))
        self.train_accuracy, self.val_accuracy = (
            MulticlassAccuracy(len(class_weights), average="micro", validate_args=False)
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, K)."""
        x = x.contiguous(memory_format=networks.memory_format(self.network))
        logits: Tensor = self.network(x)
        return logits

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """Loss of a batch, to be minimised."""
        losses = self._measure(batch, "train")
        return losses.mean() if self.weight is None else losses.sum() * self.weight(batch_idx)

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Only measure."""
        self._measure(batch, "val")

    def _measure(self, batch: Sequence[Tensor], subset: str) -> Tensor:
        x, label, _ = batch
        logits = self(x).float()  # the loss in full precision, also when the network is not
        losses = F.cross_entropy(logits, label, reduction="none")
        losses = losses * self.get_buffer("class_weights")[label]
        loss, accuracy = self._measures(subset)
        loss.update(losses.detach())
        accuracy.update(logits.detach(), label)
        return losses

    def measured(self, subset: str) -> tuple[float, float]:
        """Mean weighted loss and accuracy since the last call; `train` while training."""
        loss, accuracy = self._measures(subset)
        values = loss.compute().item(), accuracy.compute().item()
        loss.reset()
        accuracy.reset()
        return values

    def _measures(self, subset: str) -> tuple[MeanMetric, MulticlassAccuracy]:
        if subset == "train":
            return self.train_loss, self.train_accuracy
        return self.val_loss, self.val_accuracy

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser by name; the learning rate is set anew at each epoch's start.

        A group's `lr_factor` multiplies it; frozen weights are in none.
        """
        params = self.train_params
        trained = [(n, p) for n, p in self.network.named_parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {
                "params": [p for n, p in trained if n.startswith("features.") is features],
                "lr_factor": factor,
            }
            for features, factor in ((True, params.features_lr), (False, 1.0))
        ]
        groups = [group for group in groups if group["params"]]
        common: dict[str, Any] = {"lr": params.lr, "weight_decay": params.weight_decay}
        if params.optimizer == "sgd":
            return torch.optim.SGD(
                groups, momentum=params.momentum, nesterov=params.nesterov, **common
            )
        kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        return kinds[params.optimizer](groups, **common)
