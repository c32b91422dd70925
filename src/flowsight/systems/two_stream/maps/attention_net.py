"""Attention network: attention maps without knowing the class, for test time.

Axes: B batch, C channels, H rows, W columns.

Per target layer: conv 3x3, batch norm, ReLU, conv 1x1, sigmoid, at the layer's own resolution.
Several layers: each has such a network; the maps are upsampled to the largest and averaged, as
Grad-CAM's are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flowsight.nn.gradcam import combine, largest_size


def build(*, in_channels: Sequence[int], hidden_channels: int) -> AttentionNetwork:
    """Make the network.

    Args:
        in_channels: C of each target layer.
        hidden_channels: width between the two convolutions (not stated in the thesis).

    Returns:
        list of (B, C, h, w) features -> (B, h, w) maps in [0, 1], at the largest layer's size.
    """
    return AttentionNetwork(in_channels=in_channels, hidden_channels=hidden_channels)


class AttentionNetwork(nn.Module):
    """One small network per target layer."""

    def __init__(self, *, in_channels: Sequence[int], hidden_channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, hidden_channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(hidden_channels),
                nn.ReLU(inplace=True),
                nn.Conv2d(hidden_channels, 1, 1),
            )
            for channels in in_channels
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps of the layers' features: list of (B, C, h, w) -> (B, h, w) in [0, 1]."""
        pairs = zip(self.branches, features, strict=True)
        maps = [torch.sigmoid(branch(feature))[:, 0] for branch, feature in pairs]  # (B, h, w)
        return combine(maps, largest_size(features))
