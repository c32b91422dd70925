"""The one place that drives `lightning.Trainer`: devices, precision, progress, resuming.

Every epoch is a function of the parameters, (seed, epoch) and the state at its start: chance is
seeded anew at each epoch, the learning rate is computed from the epoch's number, and data orders
and augmentation are drawn from (seed, epoch, item). The state is kept at each epoch's end, so a
training that was killed ends in the same bytes as one that was not. Lightning's own resuming
restores no random state and gives other weights.
"""

from __future__ import annotations

import importlib
import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning.pytorch as lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from flowsight.batches.clips import Clip, ClipDataset, load_clips, loader
from flowsight.classifiers import networks
from flowsight.classifiers.params import RowParams
from flowsight.errors import InputError, ResourceError
from flowsight.nn import checkpoint, seeding
from flowsight.params.config import Params
from flowsight.params.training import TrainParams
from flowsight.training import resume, schedule
from flowsight.training.batches import EpochBatches
from flowsight.training.epoch_progress import EpochProgress
from flowsight.training.schedule import Epoch

Log = Callable[[Mapping[str, float], int], None]


def fit(
    *,
    model: ModuleType,
    row: RowParams,
    row_name: str,
    params: Params,
    manifest: Path,
    split: Path,
    packs: Path,
    scratch_key: str,
    log: Log,
    init: Path | None = None,
    maps: Path | None = None,
    pretrained: Mapping[str, Tensor] | None = None,
    part: range | None = None,
) -> tuple[dict[str, Tensor], list[Epoch]]:
    """Train a row on the training clips of a split.

    Args:
        model: the system's `network`.
        row: network, input and optimisation.
        row_name: for messages.
        params: seed and threads are read.
        manifest, split, packs, maps: see `batches.clips.load_clips`.
        scratch_key: `<stage>/<hash>`; state under it, if any, is gone on from. It stays until the
            caller, having written the outputs, calls `training.resume.discard`.
        log: called with the metrics of each epoch and its number.
        init: folder of a checkpoint of the same network to start from.
        pretrained: weights of the backbone to start from.
        part: epochs of the row's schedule to do, counted from 0 (one round of several); None: all.

    Returns:
        State dict on the CPU (of the best validation loss if `patience` is set, else the last),
        and the history.

    Raises:
        InputError: no training clips, weights that do not fit, a loss that is not finite.
        ResourceError: the device's memory does not hold a batch.
    """
    clips, classes = load_clips(manifest, split, packs, maps, map_control=row.start.map_control)
    with seeding.reproducible(params.threads):
        seeding.seed_everything(params.seed)
        network = networks.build(model, row, len(classes), pretrained)
        if init is not None:
            checkpoint.restore(network, init / "model.pt")
        return fit_network(
            network,
            _clip_work(clips, len(classes), row, params.seed, split),
            train=row.train,
            row_name=row_name,
            seed=params.seed,
            scratch_key=scratch_key,
            log=log,
            part=part,
        )


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a network is trained on, and for what."""

    num_train: int
    """Items that train."""
    num_val: int
    load: Callable[[EpochBatches, bool], DataLoader[Any]]
    """(batches, are they training's) -> their loader."""
    task: Callable[[nn.Module, Callable[[int], float]], Any]
    """(network, weight of a batch) -> the LightningModule."""
    where: Path
    """For messages: where the items are listed."""


def fit_network(
    network: nn.Module,
    work: Work,
    *,
    train: TrainParams,
    row_name: str,
    seed: int,
    scratch_key: str,
    log: Log,
    part: range | None = None,
) -> tuple[dict[str, Tensor], list[Epoch]]:
    """Train any network under `nn.seeding.reproducible`; `fit` says what the rest means.

    Args:
        network: changed in place.
        work: items and task.
        train: optimisation.
        row_name, seed, scratch_key, log, part: as of `fit`.

    Returns, Raises: as `fit`.
    """
    with _quiet_lightning():
        network = network.to(memory_format=networks.memory_format(network))  # free speed
        run = _Run(network, train, row_name, seed, scratch_key, log, part)
        _train(run, work)
    return run.result(), run.history


class _Run(lightning.Callback):
    """What happens around epochs; holds the state that a killed training goes on from."""

    def __init__(
        self,
        network: nn.Module,
        train: TrainParams,
        row_name: str,
        seed: int,
        scratch_key: str,
        log: Log,
        part: range | None,
    ) -> None:
        self.part = range(train.epochs) if part is None else part
        self.network, self.train, self.row_name, self.seed = network, train, row_name, seed
        self.scratch_key, self.report = scratch_key, log  # Lightning puts its own `log` here
        self.history: list[Epoch] = []
        self.best: dict[str, Tensor] | None = None
        self.batches: EpochBatches
        self.display: EpochProgress | None = None
        self._optimizer_state: dict[str, Any] | None = None
        self._precision_state: dict[str, Any] = {}
        state = resume.load(scratch_key)
        if state is not None:
            self._restore(state)

    def _restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.history = [Epoch(**values) for values in state["history"]]
        self.best = state["best"]
        self._optimizer_state = state["optimizer"]
        self._precision_state = state["precision"]

    @property
    def epoch(self) -> int:
        """The epoch to come or under way, counted from 0."""
        return self.part.start + len(self.history)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return schedule.is_over(self.history, self.train, len(self.part))

    def result(self) -> dict[str, Tensor]:
        """Weights on the CPU in the plain memory layout, whatever they were trained in."""
        return self.best if self.best is not None else _plain(self.network.state_dict())

    def close(self) -> None:
        """Take the progress bar off the terminal."""
        if self.display is not None:
            self.display.close()

    def on_train_start(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        if trainer.num_devices == 1 and threading.current_thread() is threading.main_thread():
            # Lightning would finish the epoch first and then exit with 0
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self._optimizer_state is not None:
            trainer.optimizers[0].load_state_dict(self._optimizer_state)
            trainer.precision_plugin.load_state_dict(self._precision_state)
            self._optimizer_state = None
        if trainer.is_global_zero:
            counts = self.part.stop, int(trainer.num_training_batches), self.epoch
            self.display = EpochProgress(f"train {self.row_name}", *counts)

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, task: lightning.LightningModule
    ) -> None:
        self.batches.epoch = self.epoch
        for group in trainer.optimizers[0].param_groups:
            rate = schedule.learning_rate(self.train, self.epoch)
            group["lr"] = rate * group.get("lr_factor", 1.0)

    def on_train_batch_start(
        self, trainer: lightning.Trainer, task: lightning.LightningModule, batch: Any, index: int
    ) -> None:
        if index == 0:  # as late as can be: whatever drew before, dropout starts from here
            seeding.seed_everything(self.seed, self.epoch + 1, trainer.global_rank)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, task: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        if self.display is not None:
            self.display.batch_done()

    def on_train_epoch_end(self, trainer: lightning.Trainer, task: Any) -> None:
        loss, accuracy = task.measured("train")
        val_loss, val_accuracy = task.measured("val") if trainer.num_val_batches else (None, None)
        done = Epoch(
            epoch=self.epoch + 1,
            lr=schedule.learning_rate(self.train, self.epoch),
            train_loss=loss,
            train_accuracy=accuracy,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
        )
        schedule.check_finite(done, self.row_name)
        self.history.append(done)
        if self.train.patience is not None and schedule.is_best(self.history):
            self.best = _plain(self.network.state_dict())
        self.report({k: v for k, v in asdict(done).items() if v is not None}, done.epoch)
        trainer.should_stop = self.is_over
        if trainer.is_global_zero:
            resume.save(self._state(trainer), self.scratch_key)
        if self.display is not None:
            self.display.epoch_done(asdict(done), last=trainer.should_stop)

    def _state(self, trainer: lightning.Trainer) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": trainer.optimizers[0].state_dict(),
            "precision": trainer.precision_plugin.state_dict(),
            "history": [asdict(epoch) for epoch in self.history],
            "best": self.best,
        }


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
        for name, tensor in state.items()
    }


def _train(run: _Run, work: Work) -> None:
    params = run.train
    if not work.num_train:
        raise InputError(f"expected training clips in {work.where}, found none")
    if run.is_over:
        return
    trainer = lightning.Trainer(
        accelerator="auto",
        devices=params.devices,
        precision=params.precision,
        max_epochs=run.part.stop - run.epoch,
        callbacks=[run],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    run.batches = EpochBatches(
        work.num_train * params.samples_per_epoch,
        batch_size=params.batch_size * params.accumulate,
        micro_batch=schedule.micro_batch(params),
        seed=run.seed,
        epoch=run.epoch,
        rank=trainer.global_rank,
        num_devices=trainer.world_size,
    )
    # Lightning divides each loss by this number; the batches' weights already make it a mean
    steps = trainer.accumulate_grad_batches = run.batches.steps_per_group
    task = work.task(run.network, lambda index: run.batches.weight(index) * steps)
    loaders = [work.load(run.batches, True)]
    if work.num_val:
        size = schedule.micro_batch(params)
        batches = EpochBatches(work.num_val, batch_size=size, seed=run.seed, shuffle=False)
        loaders.append(work.load(batches, False))
    try:
        trainer.fit(task, *loaders)
    except torch.OutOfMemoryError:
        raise ResourceError(_too_big(run)) from None
    except InputError as error:
        # a loader's process sends its traceback as the message; the last line is ours
        raise InputError(str(error).strip().rpartition("InputError: ")[2]) from None
    finally:
        run.close()
    if not trainer.is_global_zero:  # the other processes of several devices have nothing to write
        raise SystemExit(0)


def _clip_work(
    clips: Sequence[Clip], num_classes: int, row: RowParams, seed: int, split: Path
) -> Work:
    subsets = {subset: [c for c in clips if c.subset == subset] for subset in ("train", "val")}

    def load(batches: EpochBatches, train: bool) -> DataLoader[Any]:
        own = subsets["train" if train else "val"]
        has_map = row.network.map_channel
        dataset = ClipDataset(own, row.input, train=train, seed=seed, map_channel=has_map)
        return loader(dataset, batches)

    def task(network: nn.Module, weight: Callable[[int], float]) -> Any:
        module = importlib.import_module("flowsight.classifiers.task")
        return module.build(network, num_classes=num_classes, params=row.train, weight=weight)

    return Work(
        num_train=len(subsets["train"]),
        num_val=len(subsets["val"]),
        load=load,
        task=task,
        where=split,
    )


def _too_big(run: _Run) -> str:
    size = schedule.micro_batch(run.train)
    return (
        f"expected a batch of {size} to fit into the GPU's memory, it did not, in {run.row_name}; "
        f"set FLOWSIGHT_MICRO_BATCH={max(1, size // 2)} (the optimiser's batch stays)"
    )


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Without Lightning's advertising and the warnings that say nothing new."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # FLOWSIGHT_WORKERS says how many processes read clips
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            # a split need not have validation clips
            warnings.filterwarnings("ignore", message=".*have no `val_dataloader`.*")
            # Lightning's own use of torch's pytree
            warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
