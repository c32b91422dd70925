"""Training of networks over images, from pretrained weights or after slimming."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from flowsight.batches.clips import num_workers
from flowsight.datasets.images.pairs import Pair, load_pairs
from flowsight.nn import seeding
from flowsight.nn.slimming import Batch
from flowsight.systems.saliency import networks
from flowsight.systems.saliency.batches import PairDataset, as_read
from flowsight.systems.saliency.params import Block, ImageRowParams
from flowsight.training import loop
from flowsight.training.batches import EpochBatches
from flowsight.training.loop import Log, Work
from flowsight.training.schedule import Epoch

_SCORED = 4
"""Images whose Taylor scores are computed at once."""


def fit(
    *,
    row_name: str,
    block: Block,
    raw: Path,
    pairs: Path,
    split_id: str,
    seed: int,
    threads: int,
    scratch_key: str,
    log: Log,
    init: Path | None = None,
    pretrained: Mapping[str, Tensor] | None = None,
) -> tuple[dict[str, Tensor], list[Epoch]]:
    """Train a row on the training pairs of a split; slim it first where the row says so.

    Args:
        row_name: a row's name.
        block: rows and plans.
        raw, pairs, split_id: see `image_pairs.load_pairs`.
        seed, threads: of the parameters.
        scratch_key, log: see `training.loop.fit`.
        init: folder of the checkpoint of `row.start.init`.
        pretrained: weights of the backbone to start from, without `init`.

    Returns:
        As `training.loop.fit`; the state of a slim network has its sizes.

    Raises:
        InputError: no training pairs, weights or a plan that do not fit, a loss that is not finite.
        ResourceError: the device's memory does not hold a batch.
    """
    row = block.rows[row_name]
    found = load_pairs(raw, pairs, split_id)
    with seeding.reproducible(threads):
        seeding.seed_everything(seed)
        if init is None:
            network = networks.build(row, pretrained)
        else:
            network = networks.restored(block.rows[str(row.start.init)], {}, init)
            network = _slim(network, row, block, found, seed)
        return loop.fit_network(
            network,
            _work(found, row, seed, pairs / "splits" / f"{split_id}.csv"),
            train=row.train,
            row_name=row_name,
            seed=seed,
            scratch_key=scratch_key,
            log=log,
        )


def _slim(
    network: nn.Module, row: ImageRowParams, block: Block, pairs: Sequence[Pair], seed: int
) -> nn.Module:
    own = [pair for pair in pairs if pair.subset == "train"]
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    slim = networks.slimmed(
        network.to(where),
        row,
        block.plan_of(row),
        seed=seed,
        batches=scoring_batches(own, row, seed, where),
    )
    return slim.cpu()


def scoring_batches(
    pairs: Sequence[Pair], row: ImageRowParams, seed: int, where: torch.device
) -> Iterator[Batch]:
    """Training images, as they are tested, on which Taylor scores are computed."""
    if row.start.slim is None or not pairs:
        return
    dataset = PairDataset(pairs, row.input, train=False, seed=seed)
    order = EpochBatches(len(pairs), batch_size=len(pairs), seed=seed).order(0)
    chosen = order[: row.start.slim.num_images].tolist()
    for start in range(0, len(chosen), _SCORED):
        x, target, _ = dataset.__getitems__([(0, i) for i in chosen[start : start + _SCORED]])
        yield x.to(where), target.to(where)


def _work(pairs: Sequence[Pair], row: ImageRowParams, seed: int, where: Path) -> Work:
    subsets = {subset: [p for p in pairs if p.subset == subset] for subset in ("train", "val")}

    def load(batches: EpochBatches, train: bool) -> DataLoader[Any]:
        own = subsets["train" if train else "val"]
        return DataLoader(
            PairDataset(own, row.input, train=train, seed=seed),
            batch_sampler=batches,
            collate_fn=as_read,
            num_workers=num_workers(),
            persistent_workers=num_workers() > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # its own, as in `batches.clips.loader`
        )

    def task(network: nn.Module, weight: Callable[[int], float]) -> Any:
        module = importlib.import_module("flowsight.systems.saliency.task")
        return module.build(network, loss=row.train.loss, params=row.train, weight=weight)

    return Work(
        num_train=len(subsets["train"]),
        num_val=len(subsets["val"]),
        load=load,
        task=task,
        where=where,
    )
