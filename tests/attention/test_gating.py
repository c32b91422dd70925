"""Attention learnt through another network's loss: it looks where that network's evidence is."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowsight.systems.two_stream.maps import attention_net, learning
from flowsight.systems.two_stream.maps.gating import GatedFrame, GatedLoss, gate

SIZE, CELLS = 32, 8  # input px, map px
NUMBERS: dict[str, Any] = {
    "hidden_channels": 8,
    "epochs": 40,
    "batch_size": 16,
    "lr": 0.01,
    "val_share": 0.2,
}


class Teacher(nn.Module):
    """Two classes: does the input hold more light or more dark? Constant channel not looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.2))
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        evidence = self.norm(x[:, :1]).sum(dim=(1, 2, 3)) * self.scale
        return torch.stack([evidence, -evidence], dim=1)


def clips(count: int = 60, *, seed: int = 0) -> tuple[list[GatedFrame], Tensor]:
    """A patch somewhere tells the class by its sign; its place, not its sign, is in the features.

    Returns:
        frames, and (N, h, w) bool where the patch is.
    """
    generator = torch.Generator().manual_seed(seed)
    frames, places = [], torch.zeros(count, CELLS, CELLS, dtype=torch.bool)
    for i in range(count):
        x, y = torch.randint(0, CELLS - 1, (2,), generator=generator).tolist()
        places[i, y : y + 2, x : x + 2] = True
        large = places[i].repeat_interleave(4, 0).repeat_interleave(4, 1).float()
        noise = torch.randn(SIZE, SIZE, generator=generator)
        picture = noise * (1 - large) * 0.5 + large * (1 if i % 2 == 0 else -1)
        features = torch.randn(6, CELLS, CELLS, generator=generator)
        features[2] += 3 * places[i].float()
        given = torch.stack([picture, torch.full_like(picture, 0.1)])
        frames.append(GatedFrame(f"clip{i}", [features], partial(lambda t: t, given), i % 2))
    return frames, places


def fit(
    frames: list[GatedFrame], area_weight: float = 1.0, *, seed: int = 1, epochs: int = 40
) -> learning.Learnt:
    torch.manual_seed(0)
    loss = GatedLoss(Teacher(), map_channel=True, area_weight=area_weight)
    return learning.fit(frames, loss, **{**NUMBERS, "epochs": epochs}, seed=seed)


def maps_of(learnt: learning.Learnt, frames: list[GatedFrame]) -> Tensor:
    with torch.no_grad():
        return learnt.network(learning.stacked(learnt.network, frames))


def test_attention_goes_where_the_signal_is() -> None:
    frames, places = clips()
    learnt = fit(frames)
    losses = [row["train_loss"] for row in learnt.history]
    assert losses[-1] < 0.2 * losses[0]
    others, places = clips(seed=7)  # never seen
    maps = maps_of(learnt, others)
    assert maps.min() >= 0 and maps.max() <= 1
    inside = (maps * places).sum() / maps.sum()
    area = places.float().mean()
    assert area < 0.07 and inside > 5 * area
    peaks = maps.flatten(1).argmax(1)
    assert places.flatten(1).gather(1, peaks[:, None]).float().mean() > 0.8


def test_it_is_the_loss_that_leads_there() -> None:
    """Shuffled places: with no clue in the features, the map cannot find the patch."""
    frames, _ = clips()
    others = frames[2:] + frames[:2]  # of the same class
    rolled = [a._replace(features=b.features) for a, b in zip(frames, others, strict=True)]
    others, places = clips(seed=7)
    maps = maps_of(fit(rolled), others)
    assert (maps * places).sum() / maps.sum() < 0.15


def test_a_map_costs_its_area() -> None:
    frames, _ = clips(30)
    areas = [
        maps_of(fit(frames, weight, epochs=15), frames).mean().item() for weight in (0.0, 0.1, 4.0)
    ]
    assert areas[0] > areas[1] > areas[2]


def test_same_seed_same_weights_and_no_trace() -> None:
    frames, _ = clips(20)
    first, second, other = (fit(frames, seed=seed, epochs=3) for seed in (1, 1, 2))
    states = [one.network.state_dict() for one in (first, second, other)]
    assert first.history == second.history
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())
    assert not torch.equal(states[0]["branches.0.0.weight"], states[2]["branches.0.0.weight"])


def test_the_teacher_stays_as_it_is() -> None:
    frames, _ = clips(20)
    teacher = Teacher().train()
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    loss = GatedLoss(teacher, map_channel=True, area_weight=1.0)
    learning.fit(frames, loss, **{**NUMBERS, "epochs": 2}, seed=1)
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert teacher.scale.grad is None and not teacher.training


@pytest.mark.parametrize("count", [5, 40])  # one piece, and several
def test_gradient_is_that_of_the_plain_loss(count: int) -> None:
    frames, _ = clips(count)
    torch.manual_seed(3)
    network = attention_net.build(in_channels=[6], hidden_channels=4)
    teacher = Teacher().eval()
    loss = GatedLoss(teacher, map_channel=True, area_weight=0.7)
    network.train()
    found = loss(network, frames)
    found.backward()
    gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    maps = network(learning.stacked(network, frames))
    inputs = torch.stack([frame.read() for frame in frames])
    logits = teacher(gate(inputs, maps, map_channel=True))
    labels = torch.tensor([frame.label for frame in frames])
    expected = F.cross_entropy(logits, labels) + 0.7 * maps.mean()
    expected.backward()
    torch.testing.assert_close(found, expected)
    assert len(gradients) == len(list(network.parameters()))
    for gradient, parameter in zip(gradients, network.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-6)


def test_gate() -> None:
    x = torch.ones(1, 3, 4, 4)
    half = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    gated = gate(x, half, map_channel=True)
    assert torch.equal(gated[:, 2], x[:, 2]) and gated[0, 0, 0, 0] == 1 and gated[0, 1, 3, 3] == 0
    assert torch.equal(gate(x, half, map_channel=False)[:, 2], gated[:, 0])
