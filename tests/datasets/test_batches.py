"""How items are dealt into batches."""

from __future__ import annotations

from itertools import chain

import pytest

from flowsight.training.batches import EpochBatches


def test_every_item_once_in_an_epoch() -> None:
    batches = EpochBatches(10, batch_size=4, seed=1)
    dealt = list(batches)
    assert [len(batch) for batch in dealt] == [4, 4, 2] and len(batches) == 3
    assert sorted(index for batch in dealt for _, index in batch) == list(range(10))
    assert {epoch for batch in dealt for epoch, _ in batch} == {0}


def test_order_is_a_function_of_seed_and_epoch() -> None:
    first = EpochBatches(20, batch_size=4, seed=1)
    later = EpochBatches(20, batch_size=4, seed=1, epoch=5)
    first.epoch = 5
    assert list(first) == list(later)
    assert first.order(5).tolist() != first.order(6).tolist()
    assert first.order(5).tolist() != EpochBatches(20, batch_size=4, seed=2).order(5).tolist()


def test_validation_keeps_the_order() -> None:
    batches = EpochBatches(5, batch_size=2, seed=1, shuffle=False)
    assert list(batches) == [[(0, 0), (0, 1)], [(0, 2), (0, 3)], [(0, 4)]]


def test_micro_batches_cut_groups_and_not_their_order() -> None:
    whole = EpochBatches(10, batch_size=4, seed=1)
    cut = EpochBatches(10, batch_size=4, seed=1, micro_batch=3)
    assert [len(batch) for batch in cut] == [3, 1, 3, 1, 2] and len(cut) == 5
    assert cut.steps_per_group == 2
    assert list(chain(*whole)) == list(chain(*cut))
    # weights x items: each group's loss is a mean
    assert [cut.weight(i) for i in range(5)] == [0.25] * 4 + [0.5]


def test_devices_share_a_group() -> None:
    ranks = [EpochBatches(10, batch_size=4, seed=1, rank=r, num_devices=2) for r in range(2)]
    dealt = [list(rank) for rank in ranks]
    assert [len(batch) for batch in dealt[0]] == [2, 2, 1] == [len(batch) for batch in dealt[1]]
    together = sorted(index for rank in dealt for batch in rank for _, index in batch)
    assert together == list(range(10))
    assert [ranks[0].weight(i) for i in range(3)] == [0.5, 0.5, 1.0]


def test_an_uneven_group_is_filled_up() -> None:
    ranks = [EpochBatches(3, batch_size=3, seed=1, rank=r, num_devices=2) for r in range(2)]
    sizes = [[len(batch) for batch in rank] for rank in ranks]
    assert sizes == [[2], [2]], "each device takes as many steps as the other"


@pytest.mark.parametrize("num_items", [1, 7, 16, 33])
@pytest.mark.parametrize("micro_batch", [None, 1, 3, 8])
def test_length_is_right(num_items: int, micro_batch: int | None) -> None:
    batches = EpochBatches(num_items, batch_size=8, seed=0, micro_batch=micro_batch)
    dealt = list(batches)
    assert len(dealt) == len(batches)
    total = sum(len(batch) * batches.weight(i) for i, batch in enumerate(dealt))
    assert total == pytest.approx(-(-num_items // 8)), "the weights of a group add up to one"
