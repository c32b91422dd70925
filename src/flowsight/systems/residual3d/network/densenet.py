"""3D densely connected networks, with or without attention on each layer's new features.

Axes: B batch, C channels, T frames, H rows, W columns, K classes, k growth rate.

    x_l = H_l([x_0, x_1, ..., x_{l-1}]),  H = BN - ReLU - Conv3D(3x3x3), k new channels a layer

What the shortcut's sum is to a residual block the concatenation is here: attention stands after
H_l and before its features join the others. Between the dense blocks a transition halves the
channels and the size. With `bottleneck`, H has a 1x1x1 convolution to 4k channels first; blocks
(6, 12, 24, 16) are then DenseNet-121 over time.

Sources: Huang et al. 2017, "Densely connected convolutional networks"; Diba et al. 2017,
"Temporal 3D ConvNets".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowsight.errors import InputError
from flowsight.systems.residual3d.network.attention import Attend

DEPTH_40 = (12, 12, 12)
"""Layers of each block in the network of 40 layers that the growth rates 12 and 24 come from."""


def build(
    *,
    growth: int,
    num_classes: int,
    in_channels: int = 3,
    blocks: Sequence[int] = DEPTH_40,
    bottleneck: bool = False,
    stem_channels: int | None = None,
    dropout: float = 0.0,
    attention: Attend | None = None,
) -> DenseNet3D:
    """Make the network.

    Args:
        growth: k, 12 to 24 in the paper.
        num_classes: K.
        in_channels: C of the input.
        blocks: layers of each dense block.
        bottleneck: a 1x1x1 convolution to 4k channels before each 3x3x3.
        stem_channels: None: 2k.
        dropout: probability before the last layer.
        attention: channels -> module, put into each layer (see `attention.factory`); None: plain.

    Returns:
        (B, C, T, H, W) float -> logits (B, K); dense blocks are called `block1`, `block2`, ...

    Raises:
        InputError: no growth or no blocks.
    """
    if growth < 1 or not blocks or min(blocks) < 1:
        raise InputError(f"expected a growth and blocks of 1 or more, got {growth} and {blocks}")
    network = DenseNet3D(
        growth=growth,
        num_classes=num_classes,
        in_channels=in_channels,
        blocks=blocks,
        bottleneck=bottleneck,
        stem_channels=stem_channels or 2 * growth,
        dropout=dropout,
        attention=attention,
    )
    _initialise(network)
    return network


class DenseNet3D(nn.Module):
    """Stem, dense blocks with transitions between them, last norm, global average, `fc`."""

    def __init__(
        self,
        *,
        growth: int,
        num_classes: int,
        in_channels: int,
        blocks: Sequence[int],
        bottleneck: bool,
        stem_channels: int,
        dropout: float,
        attention: Attend | None,
    ) -> None:
        super().__init__()
        channels = stem_channels
        self.stem = nn.Sequential(  # (B, 2k, T/2, H/4, W/4)
            nn.Conv3d(in_channels, channels, 7, stride=(1, 2, 2), padding=3, bias=False),
            nn.BatchNorm3d(channels),
            nn.ReLU(inplace=True),
            nn.MaxPool3d(3, stride=2, padding=1),
        )
        self.level_names: list[str] = []
        for number, depth in enumerate(blocks, start=1):
            layers = [
                DenseLayer(channels + i * growth, growth, bottleneck, attention)
                for i in range(depth)
            ]
            self._add_level(f"block{number}", nn.Sequential(*layers))
            channels += depth * growth
            if number < len(blocks):
                self._add_level(f"transition{number}", _transition(channels))
                channels //= 2
        self.norm = nn.BatchNorm3d(channels)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)

    def _add_level(self, name: str, level: nn.Module) -> None:
        self.add_module(name, level)
        self.level_names.append(name)

    def forward_features(self, x: Tensor) -> Tensor:
        """Last feature map: (B, C, T, H, W) -> (B, D, t, h, w), halved at each transition."""
        x = self.stem(x)
        for name in self.level_names:
            x = self.get_submodule(name)(x)
        return self.norm(x).relu()

    def forward_head(self, features: Tensor) -> Tensor:
        """Logits of the last feature map: (B, D, t, h, w) -> (B, K)."""
        logits: Tensor = self.fc(self.dropout(features.mean(dim=(2, 3, 4))))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Logits: (B, C, T, H, W) -> (B, K)."""
        return self.forward_head(self.forward_features(x))


class DenseLayer(nn.Module):
    """H_l and its attention; hands on what it got with k new channels behind."""

    def __init__(
        self, in_channels: int, growth: int, bottleneck: bool, attention: Attend | None
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.BatchNorm3d(in_channels), nn.ReLU(inplace=True)]
        if bottleneck:
            parts += [
                nn.Conv3d(in_channels, 4 * growth, 1, bias=False),
                nn.BatchNorm3d(4 * growth),
                nn.ReLU(inplace=True),
            ]
            in_channels = 4 * growth
        parts.append(nn.Conv3d(in_channels, growth, 3, padding=1, bias=False))
        self.composite = nn.Sequential(*parts)
        self.attention = None if attention is None else attention(growth)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, C + k, T, H, W)."""
        new = self.composite(x)  # (B, k, T, H, W)
        if self.attention is not None:
            new = self.attention(new)
        return torch.cat([x, new], dim=1)


def _transition(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm3d(channels),
        nn.ReLU(inplace=True),
        nn.Conv3d(channels, channels // 2, 1, bias=False),
        Halve(),
    )


class Halve(nn.Module):
    """Average of 2 x 2 x 2 neighbours; a short clip comes down to one frame and stays there."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, C, T/2, H/2, W/2), rounded down, at least 1."""
        return F.avg_pool3d(x, [min(2, side) for side in x.shape[2:]])


def _initialise(network: nn.Module) -> None:
    for name, part in network.named_modules():
        # attention keeps the small weights it is made with: larger ones start its sigmoid far out
        if isinstance(part, nn.Conv3d) and ".attention." not in name:
            nn.init.kaiming_normal_(part.weight)
