"""Learning attention: it learns, deterministically, and splits by clip."""

from __future__ import annotations

import pytest
import torch

from flowsight.errors import InputError
from flowsight.systems.two_stream.maps import learning
from flowsight.systems.two_stream.maps.learning import Example, Learnt


def examples(num_clips: int = 10, frames: int = 4) -> list[Example]:
    """The map is where channel 0 is high; channel 1 is noise. Every third clip is wider."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for clip in range(num_clips):
        for _ in range(frames):
            features = torch.rand(3, 6, 8 if clip % 3 == 0 else 6, generator=generator)
            found.append(Example(f"c{clip}", [features], (features[0] > 0.5).float()))
    return found


def learn(found: list[Example], **changes: object) -> Learnt:
    options: dict[str, object] = {
        "hidden_channels": 8,
        "epochs": 15,
        "batch_size": 8,
        "lr": 0.02,
        "val_share": 0.2,
        "seed": 1,
    }
    return learning.learn(found, **{**options, **changes})  # type: ignore[arg-type]


def test_learns_and_keeps_the_best_epoch() -> None:
    found = examples()
    learnt = learn(found)
    losses = [row["val_loss"] for row in learnt.history]
    assert list(learnt.history[0]) == ["epoch", "train_loss", "val_loss"]
    assert min(losses) < 0.5 * losses[0]
    _, val = learning.split_by_clip(found, 0.2, 1)
    now = learning._mean_loss(
        learnt.network, learning._against_maps, learning.batches(val, 8, None)
    )
    assert now == pytest.approx(min(losses), abs=1e-7)
    assert not learnt.network.training


def test_same_seed_same_weights_and_global_generator_untouched() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = learn(examples(), epochs=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    second, third = learn(examples(), epochs=3), learn(examples(), epochs=3, seed=2)
    assert first.history == second.history != third.history
    for name, weight in first.network.state_dict().items():
        assert torch.equal(weight, second.network.state_dict()[name])


def test_split_is_by_clip_eight_to_two() -> None:
    found = examples(num_clips=20)
    train, val = learning.split_by_clip(found, 0.2, seed=3)
    ids = {e.clip_id for e in train}, {e.clip_id for e in val}
    assert (len(ids[0]), len(ids[1])) == (16, 4) and not ids[0] & ids[1]
    assert len(train) + len(val) == len(found)
    assert {e.clip_id for e in learning.split_by_clip(found, 0.2, seed=4)[1]} != ids[1]


@pytest.mark.parametrize(("num_clips", "expected"), [(1, (1, 1)), (2, (1, 1)), (3, (2, 1))])
def test_few_clips(num_clips: int, expected: tuple[int, int]) -> None:
    train, val = learning.split_by_clip(examples(num_clips, frames=1), 0.2, seed=0)
    assert (len(train), len(val)) == expected


def test_batches_hold_one_size_and_every_frame() -> None:
    found = examples(num_clips=7, frames=3)
    cut = learning.batches(found, 4, torch.Generator().manual_seed(0))
    assert all(len({e.target.shape for e in batch}) == 1 and len(batch) <= 4 for batch in cut)
    assert sorted(id(e) for batch in cut for e in batch) == sorted(id(e) for e in found)
    again = learning.batches(found, 4, torch.Generator().manual_seed(1))
    assert [[id(e) for e in b] for b in again] != [[id(e) for e in b] for b in cut]


def test_nothing_to_learn_from() -> None:
    with pytest.raises(InputError, match="training clips"):
        learn([])
