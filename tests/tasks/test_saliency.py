"""The saliency task: losses of padded images, the sum and its equivalent mean, the optimiser."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowsight.params.training import TrainParams
from flowsight.systems.saliency import task as saliency


def params(**changes: Any) -> TrainParams:
    values: dict[str, Any] = {
        "epochs": 10,
        "samples_per_epoch": 1,
        "batch_size": 1,
        "accumulate": 1,
        "optimizer": "sgd",
        "lr": 0.1,
        "momentum": 0.99,
        "weight_decay": 5e-4,
        "schedule": "constant",
        "milestones": (),
        "gamma": 0.1,
        "patience": None,
        "precision": "32-true",
        "devices": 1,
    }
    return TrainParams(**{**values, **changes})


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)).double()


def batch(size: int = 2, height: int = 5, width: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(size, 3, height, width, generator=generator, dtype=torch.double)
    return x, (x[:, 0] > 0.3).to(torch.uint8), torch.arange(size)


def test_loss_of_an_image_is_the_sum_or_mean_over_its_pixels() -> None:
    x, target, index = batch()
    padded = target.clone()
    padded[0, 3:], padded[1, :, 5:] = saliency.VOID, saliency.VOID
    net = network()
    scores = net(x).float()
    first = F.cross_entropy(scores[:1, :, :3], target[:1, :3].long(), reduction="none")
    second = F.cross_entropy(scores[1:, :, :, :5], target[1:, :, :5].long(), reduction="none")
    for loss, wanted in (
        ("sum", (first.sum() + second.sum()) / 2),
        ("mean", (first.mean() + second.mean()) / 2),
    ):
        task = saliency.build(net, loss=loss, params=params())
        torch.testing.assert_close(task.training_step((x, padded, index), 0), wanted)
    weighted = saliency.build(net, loss="sum", params=params(), weight=lambda i: 0.25 * (i + 1))
    wanted = 0.5 * (first.sum() + second.sum())
    torch.testing.assert_close(weighted.training_step((x, padded, index), 1), wanted)


def test_padding_gives_no_gradient_and_no_accuracy() -> None:
    x, target, index = batch(1)
    task = saliency.build(network(), loss="mean", params=params())
    task.training_step((x, target, index), 0)
    plain = task.measured("train")
    wide, wider = torch.zeros(1, 3, 9, 9).double(), torch.full((1, 9, 9), 255, dtype=torch.uint8)
    wide[:, :, :5, :7], wider[:, :5, :7] = x, target
    wide.requires_grad_(True)
    task.training_step((wide, wider, index), 0).backward()
    assert task.measured("train") == pytest.approx(plain, rel=1e-6)
    assert wide.grad is not None
    assert not wide.grad[:, :, 6:].any() and not wide.grad[:, :, :, 8:].any()


def test_measures_are_means_over_images() -> None:
    x, target, index = batch(3)
    task = saliency.build(network(), loss="sum", params=params())
    task.validation_step((x[:2], target[:2], index[:2]), 0)
    task.validation_step((x[2:], target[2:], index[2:]), 1)
    scores = task.network(x)
    loss, accuracy = task.measured("val")
    assert loss == pytest.approx(F.cross_entropy(scores, target.long()).item(), rel=1e-5)
    assert accuracy == pytest.approx((scores.argmax(dim=1) == target).double().mean().item())


def test_the_papers_summed_loss_and_the_stated_mean_are_the_same() -> None:
    """N pixels: the sum at (rate, decay) is the mean at (N rate, decay / N); momentum as it is."""
    x, target, index = batch(1, 6, 8)
    pixels, rate, decay = 48, 1e-4, 5e-2
    ends = []
    for loss, lr, weight_decay in (
        ("sum", rate, decay),
        ("mean", pixels * rate, decay / pixels),
        ("mean", pixels * rate, decay),
    ):
        settings = params(lr=lr, weight_decay=weight_decay)
        task = saliency.build(network(), loss=loss, params=settings)
        optimizer = task.configure_optimizers()
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_factor"]
        for _ in range(25):
            optimizer.zero_grad()
            task.training_step((x, target, index), 0).backward()
            optimizer.step()
        ends.append(torch.cat([p.detach().flatten() for p in task.parameters()]))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=1e-5)
    assert (ends[0] - ends[2]).abs().max() > 1e-2, "the decay must be divided too"


def test_sgd_is_the_originals() -> None:
    """Caffe's step by hand: v = m v + lr (g + w decay); twice the rate and no decay for biases."""
    x, target, index = batch(1)
    task = saliency.build(network(), loss="mean", params=params(lr=0.5, momentum=0.9))
    optimizer = task.configure_optimizers()
    own = dict(task.named_parameters())
    by_hand = {name: p.detach().clone() for name, p in own.items()}
    speed = {name: torch.zeros_like(p) for name, p in own.items()}
    for _ in range(3):
        for group in optimizer.param_groups:  # what `training` does at each epoch's start
            group["lr"] = 0.5 * group["lr_factor"]
        optimizer.zero_grad()
        task.training_step((x, target, index), 0).backward()
        for name, p in own.items():
            bias = name.endswith("bias")
            assert p.grad is not None
            step = p.grad + (0 if bias else 5e-4) * by_hand[name]
            speed[name] = 0.9 * speed[name] + (1.0 if bias else 0.5) * step
            by_hand[name] = by_hand[name] - speed[name]
        optimizer.step()
    for name, p in own.items():
        torch.testing.assert_close(p.detach(), by_hand[name])


def test_fixed_kernels_are_not_trained() -> None:
    from flowsight.systems.saliency import network as models

    net = models.build(backbone="vgg16", width=1, border="same")
    for optimizer in ("sgd", "adamw"):
        task = saliency.build(net, loss="mean", params=params(optimizer=optimizer))
        groups = task.configure_optimizers().param_groups
        given = {id(p) for group in groups for p in group["params"]}
        assert given == {id(p) for p in net.parameters() if p.requires_grad}
