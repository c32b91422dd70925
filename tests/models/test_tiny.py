"""The tiny network: size, resolution, and that it learns."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from flowsight.nn import tiny


def test_size_and_resolution() -> None:
    network = tiny.build(num_classes=8).eval()
    assert 100_000 < sum(p.numel() for p in network.parameters()) < 300_000
    x = torch.randn(2, 3, 80, 80)
    for level, shape in zip(
        ("layer1", "layer2", "layer3", "layer4"),
        ((16, 40, 40), (32, 20, 20), (64, 10, 10), (96, 10, 10)),
        strict=True,
    ):
        x = network.get_submodule(level)(x)
        assert x.shape == (2, *shape)


def test_learns_a_toy_task() -> None:
    """Bars: lying or standing, anywhere in the picture."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    x = torch.randn(48, 1, 32, 32, generator=generator) * 0.3
    y = torch.arange(48) % 2
    for i in range(48):
        row, column = torch.randint(0, 16, (2,), generator=generator).tolist()
        x[i, 0, row : row + (12 if y[i] else 3), column : column + (3 if y[i] else 12)] += 2
    network = tiny.build(num_classes=2, in_channels=1, dropout=0.0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 < 0.5 < losses[0]
