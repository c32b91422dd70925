"""Which items make up which batch: shuffled by (seed, epoch), cut for the machine.

The optimiser's batch is a parameter; how much of it fits in memory at once, and over how many
devices it is spread, is the machine's affair. So an optimiser's batch (a *group* here) is dealt
over the devices and cut into micro-batches whose gradients are summed; `weight` makes the sum the
gradient of the mean loss over the group, whatever the cut.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


class EpochBatches:
    """Batch sampler: lists of (epoch, index), one list a micro-batch, for one device.

    Args:
        num_items: items in an epoch.
        batch_size: items behind one step of the optimiser, over all devices.
        micro_batch: items that a device takes at once; None: all of its share.
        seed: the order is a function of (seed, epoch).
        shuffle: off for validation.
        epoch: the first epoch (not 0 when a training goes on).
        rank: which device this is.
        num_devices: over how many a group is dealt; a group that does not divide is filled up
            with its first items again.
    """

    def __init__(
        self,
        num_items: int,
        *,
        batch_size: int,
        seed: int,
        micro_batch: int | None = None,
        shuffle: bool = True,
        epoch: int = 0,
        rank: int = 0,
        num_devices: int = 1,
    ) -> None:
        self.num_items = num_items
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = epoch
        self.rank = rank
        self.num_devices = num_devices
        self._share = -(-batch_size // num_devices)
        self._micro_batch = min(micro_batch or self._share, self._share)
        self.steps_per_group = -(-self._share // self._micro_batch)
        """Micro-batches behind one step of the optimiser (the last group may have fewer)."""

    def _group_sizes(self) -> list[int]:
        full, rest = divmod(self.num_items, self.batch_size)
        return [self.batch_size] * full + [rest] * (rest > 0)

    def _share_of(self, group_size: int) -> int:
        return -(-group_size // self.num_devices)

    def __len__(self) -> int:
        return sum(-(-self._share_of(size) // self._micro_batch) for size in self._group_sizes())

    def order(self, epoch: int) -> np.ndarray:
        """Item indices in the order of an epoch."""
        if not self.shuffle:
            return np.arange(self.num_items)
        return np.random.default_rng((self.seed, epoch)).permutation(self.num_items)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = self.epoch, self.order(self.epoch)
        for start in range(0, self.num_items, self.batch_size):
            group = order[start : start + self.batch_size]
            share = np.resize(group, self._share_of(len(group)) * self.num_devices)
            share = share[self.rank :: self.num_devices]
            for first in range(0, len(share), self._micro_batch):
                yield [(epoch, int(i)) for i in share[first : first + self._micro_batch]]

    def weight(self, batch_index: int) -> float:
        """Factor on the summed loss of a micro-batch that makes its group's loss a mean.

        Args:
            batch_index: of the micro-batch in its epoch.
        """
        size = self._group_sizes()[batch_index // self.steps_per_group]
        return 1.0 / self._share_of(size)
