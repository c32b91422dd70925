"""Training: the same bytes twice and after a kill, both steps of a transfer, weights of classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils import class_weight

from flowsight.nn import checkpoint
from flowsight.systems.expression_recognition import train as training


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[k], other[k]) for k in one)


def longer(row: Any, **changes: Any) -> Any:
    return replace(row, train=replace(row.train, **({"epochs": 2} | changes)))


def test_the_same_bytes_twice_whatever_the_workers(
    job: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = training.train(job())
    assert [epoch.epoch for epoch in first.history] == [1]
    assert first.history[0].val_loss is not None
    monkeypatch.setenv("FLOWSIGHT_WORKERS", "2")
    assert same(first.state, training.train(job(scratch_key="tiny/1")).state)


def test_a_killed_training_ends_in_the_same_bytes(job: Callable[..., Any]) -> None:
    whole = training.train(job(row=longer(job().row)))

    def killed(metrics: Any, epoch: int) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        training.train(job(row=longer(job().row), scratch_key="tiny/2", log=killed))
    seen: list[int] = []
    again = training.train(
        job(row=longer(job().row), scratch_key="tiny/2", log=lambda m, epoch: seen.append(epoch))
    )
    assert seen == [2], "the first epoch is not done again"
    assert same(whole.state, again.state) and whole.history == again.history


def test_step_one_leaves_the_convolutions_and_step_two_moves_them_slowly(
    job: Callable[..., Any], tmp_path: Path
) -> None:
    first = training.train(job())
    folder = tmp_path / "start"
    checkpoint.save(first.state, folder / "model.pt")
    row = job("tiny_second").row
    frozen = replace(row, start=replace(row.start, frozen=True))
    head = training.train(job("tiny_second", row=frozen, start=folder, scratch_key="h/1")).state
    for name, tensor in head.items():
        assert torch.equal(tensor, first.state[name]) is name.startswith("features."), name
    whole = training.train(job("tiny_second", start=folder, scratch_key="w/1")).state
    changed = [k for k in whole if k.endswith("conv1.weight")]
    assert all(not torch.equal(whole[k], first.state[k]) for k in changed)


def test_rates_of_convolutions_and_classifier(job: Callable[..., Any]) -> None:
    row = job("tiny_second").row
    network = training.begin(job().row, 8, None)
    task = training.ExpressionTask(network, params=row.train, class_weights=torch.ones(8))
    groups = task.configure_optimizers().param_groups
    assert [group["lr_factor"] for group in groups] == [0.1, 1.0]
    own = [{id(p) for p in group["params"]} for group in groups]
    assert own[0] == {id(p) for p in network.features.parameters()}
    assert own[1] == {id(p) for p in network.classifier.parameters()}


def test_class_weights() -> None:
    labels = [0] * 9 + [1] * 4 + [3]
    found = training.class_weights(labels, 4, "inverse_root").numpy()
    assert found[2] == 0
    np.testing.assert_allclose(found[[0, 1, 3]] / found[3], [1 / 3, 1 / 2, 1], rtol=1e-6)
    assert np.mean([found[k] for k in labels]) == pytest.approx(1)
    balanced = class_weight.compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    np.testing.assert_allclose(
        found[[0, 1, 3]] / found[0], np.sqrt(balanced / balanced[0]), rtol=1e-6
    )
    assert training.class_weights(labels, 4, "none").tolist() == [1, 1, 1, 1]


def test_the_loss_is_torchs_times_the_weight(job: Callable[..., Any]) -> None:
    network = training.begin(job().row, 3, None).eval()
    weights = torch.tensor([0.5, 1.0, 2.0])
    task = training.ExpressionTask(network, params=job().row.train, class_weights=weights)
    x, label = torch.randn(6, 1, 48, 48), torch.tensor([0, 1, 2, 2, 1, 0])
    loss = task.training_step((x, label, torch.arange(6)), 0)
    expected = torch.nn.functional.cross_entropy(network(x), label, weight=weights, reduction="sum")
    torch.testing.assert_close(loss, expected / 6)
    measured, accuracy = task.measured("train")
    assert measured == pytest.approx(loss.item(), rel=1e-5)
    assert accuracy == pytest.approx((network(x).argmax(1) == label).double().mean().item())
