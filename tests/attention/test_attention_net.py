"""The attention network's shape, range and parts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from flowsight.systems.two_stream.maps import attention_net


def test_parts_and_range() -> None:
    torch.manual_seed(0)
    network = attention_net.build(in_channels=[6], hidden_channels=4)
    kinds = [type(part) for part in network.modules() if not list(part.children())]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Conv2d]
    features = torch.randn(3, 6, 5, 7)
    maps = network([features])
    assert maps.shape == (3, 5, 7)
    assert maps.min() > 0 and maps.max() < 1


def test_several_layers_are_averaged_at_the_largest() -> None:
    torch.manual_seed(0)
    network = attention_net.build(in_channels=[6, 3], hidden_channels=4).eval()
    small, large = torch.randn(2, 6, 4, 4), torch.randn(2, 3, 8, 6)
    first = torch.sigmoid(network.branches[0](small))
    second = torch.sigmoid(network.branches[1](large))
    expected = (F.interpolate(first, (8, 6), mode="bilinear") + second) / 2
    torch.testing.assert_close(network([small, large]), expected[:, 0])
