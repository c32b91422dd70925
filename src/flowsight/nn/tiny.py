"""A small network that learns from scratch on a few dozen clips, on a CPU, in seconds.

Axes: B batch, C channels, H rows, W columns, K classes.

Four levels of 3x3 conv-BN-ReLU, total stride 8: an 80 px crop ends at 10x10, fine enough for
attention maps, where the usual stride of 32 would leave 3x3. About 210,000 parameters.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


def build(*, num_classes: int, in_channels: int = 3, dropout: float = 0.5) -> nn.Module:
    """Make the network.

    Args:
        num_classes: K.
        in_channels: C of the input.
        dropout: probability before the last layer.

    Returns:
        (B, C, H, W) float -> logits (B, K); levels are called `layer1` ... `layer4`.
    """
    return Tiny(num_classes=num_classes, in_channels=in_channels, dropout=dropout)


class Tiny(nn.Module):
    """Levels `layer1` ... `layer4`, global average, dropout, `fc`."""

    def __init__(self, *, num_classes: int, in_channels: int, dropout: float) -> None:
        super().__init__()
        self.layer1 = _level(in_channels, 16, stride=2)  # (B, 16, H/2, W/2)
        self.layer2 = _level(16, 32, stride=2)  # (B, 32, H/4, W/4)
        self.layer3 = _level(32, 64, stride=2, depth=2)  # (B, 64, H/8, W/8)
        self.layer4 = _level(64, 96, stride=1, depth=2)  # (B, 96, H/8, W/8)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(96, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = self.avgpool(x).flatten(1)  # (B, 96)
        logits: Tensor = self.fc(self.dropout(x))  # (B, K)
        return logits


def _level(in_channels: int, channels: int, *, stride: int, depth: int = 1) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(1, depth + 1):
        conv = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        parts[f"conv{i}"] = conv
        parts[f"bn{i}"] = nn.BatchNorm2d(channels)
        parts[f"relu{i}"] = nn.ReLU(inplace=True)
        in_channels, stride = channels, 1
    return nn.Sequential(parts)
