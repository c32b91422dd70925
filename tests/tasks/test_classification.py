"""The classification task: consensus, loss, optimisers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowsight.classifiers import task as classification
from flowsight.errors import InputError
from flowsight.params.training import TrainParams


def params(**changes: Any) -> TrainParams:
    values: dict[str, Any] = {
        "epochs": 10,
        "samples_per_epoch": 1,
        "batch_size": 8,
        "accumulate": 1,
        "optimizer": "sgd",
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 0.01,
        "schedule": "constant",
        "milestones": (),
        "gamma": 0.1,
        "patience": None,
        "precision": "32-true",
        "devices": 1,
    }
    return TrainParams(**{**values, **changes})


@pytest.fixture
def task() -> classification.Classification:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    return classification.build(network, num_classes=3, params=params())


def batch(size: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(size, 4, 3, 2, 2, generator=generator)
    return x, torch.arange(size) % 3, torch.arange(size)


def test_consensus_is_the_mean_over_segments(task: classification.Classification) -> None:
    x, _, _ = batch()
    by_hand = torch.stack([task.network(x[:, s]) for s in range(4)]).mean(dim=0)
    torch.testing.assert_close(task(x), by_hand)
    torch.testing.assert_close(task(x[:, :1]), task.network(x[:, 0]))


def test_loss_and_what_is_measured(task: classification.Classification) -> None:
    x, label, index = batch()
    loss = task.training_step((x, label, index), 0)
    torch.testing.assert_close(loss, F.cross_entropy(task(x), label))
    task.training_step((x[:2], label[:2], index[:2]), 1)
    losses = F.cross_entropy(task(x), label, reduction="none")
    right = (task(x).argmax(1) == label).float()
    expected_loss = (losses.sum() + losses[:2].sum()) / 7
    expected_accuracy = (right.sum() + right[:2].sum()) / 7
    measured = task.measured("train")
    assert measured == pytest.approx((expected_loss.item(), expected_accuracy.item()))
    task.validation_step((x, label, index), 0)
    assert task.measured("val") == pytest.approx((losses.mean().item(), right.mean().item()))


def test_weights_make_a_group_s_loss_a_mean() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    cut = classification.build(network, num_classes=3, params=params(), weight=lambda index: 0.2)
    x, label, index = batch()
    parts = [
        cut.training_step((x[a:b], label[a:b], index[a:b]), i)
        for i, (a, b) in enumerate([(0, 3), (3, 5)])
    ]
    torch.testing.assert_close(sum(parts), F.cross_entropy(cut(x), label))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
def test_optimizers(name: str, kind: type[torch.optim.Optimizer]) -> None:
    task = classification.build(nn.Linear(2, 3), num_classes=3, params=params(optimizer=name))
    optimizer = task.configure_optimizers()
    assert type(optimizer) is kind
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.1, 0.01)
    assert group.get("momentum", 0.9) == 0.9
    assert len(group["params"]) == 2, "the network's, and none of the metrics'"


def test_one_class_is_no_task() -> None:
    with pytest.raises(InputError, match="two classes"):
        classification.build(nn.Linear(2, 1), num_classes=1, params=params())


def test_clips_of_frames() -> None:
    """Five axes to the network: (B * S, C, T, H, W)."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(3, 4, 3), nn.Flatten(), nn.Linear(32, 3))
    task = classification.build(network, num_classes=3, params=params())
    x = batch()[0][..., None].expand(5, 4, 3, 2, 2, 4).transpose(-1, 3).repeat(1, 1, 1, 1, 2, 2)
    assert x.shape == (5, 4, 3, 4, 4, 4)
    by_hand = torch.stack([network(x[:, s]) for s in range(4)]).mean(dim=0)
    torch.testing.assert_close(task(x), by_hand)


def test_nesterov_is_torchs(task: classification.Classification) -> None:
    assert task.configure_optimizers().defaults["nesterov"] is False
    with_it = classification.build(task.network, num_classes=3, params=params(nesterov=True))
    assert with_it.configure_optimizers().defaults["nesterov"] is True
    for wrong in ({"optimizer": "adamw"}, {"momentum": 0.0}):
        with pytest.raises(ValueError, match="nesterov needs sgd with momentum"):
            params(nesterov=True, **wrong)
