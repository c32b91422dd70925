"""C3D: eight 3x3x3 convolutions, five poolings and two wide layers.

Axes: B batch, C channels, T frames, H rows, W columns, K classes.

Made for 16 frames of 112 x 112 px, where the last map is 1 x 4 x 4; other sizes are averaged to
that. The original has no batch norm and was trained at a learning rate of 0.003; `batch_norm` puts
one behind each convolution, for training from scratch at higher rates.

Source: Tran et al. 2015, "Learning spatiotemporal features with 3D convolutional networks".
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

LEVELS = ((1,), (2,), (4, 4), (8, 8), (8, 8))
"""Channels of the convolutions before each pooling, as multiples of the width."""
_POOLED = (1, 4, 4)


def build(
    *,
    num_classes: int,
    in_channels: int = 3,
    width: int = 64,
    dropout: float = 0.5,
    batch_norm: bool = False,
) -> C3D:
    """Make the network.

    Args:
        num_classes: K.
        in_channels: C of the input.
        width: channels of the first convolution; the wide layers have 64 times as many.
        dropout: probability before each of the last two layers.
        batch_norm: behind each convolution; not in the original.

    Returns:
        (B, C, T, H, W) float -> logits (B, K).
    """
    network = C3D(
        num_classes=num_classes,
        in_channels=in_channels,
        width=width,
        dropout=dropout,
        batch_norm=batch_norm,
    )
    network.apply(_initialise)
    return network


class C3D(nn.Module):
    """`features`, then `fc6`, `fc7` and `fc8`."""

    def __init__(
        self, *, num_classes: int, in_channels: int, width: int, dropout: float, batch_norm: bool
    ) -> None:
        super().__init__()
        self.features = _features(in_channels, width, batch_norm)
        channels = LEVELS[-1][-1] * width
        self.avgpool = nn.AdaptiveAvgPool3d(_POOLED)  # nothing to do at 16 x 112 x 112
        self.fc6 = nn.Linear(channels * 16, 64 * width)
        self.fc7 = nn.Linear(64 * width, 64 * width)
        self.fc8 = nn.Linear(64 * width, num_classes)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)

    def forward_features(self, x: Tensor) -> Tensor:
        """Last feature map: (B, C, T, H, W) -> (B, 8 * width, T/16, H/28, W/28), roughly."""
        features: Tensor = self.features(x)
        return features

    def forward_head(self, features: Tensor) -> Tensor:
        """Logits of the last feature map: (B, D, t, h, w) -> (B, K)."""
        x = self.avgpool(features).flatten(1)  # (B, D * 16)
        x = self.dropout(self.relu(self.fc6(x)))
        x = self.dropout(self.relu(self.fc7(x)))
        logits: Tensor = self.fc8(x)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Logits: (B, C, T, H, W) -> (B, K)."""
        return self.forward_head(self.forward_features(x))


def _features(in_channels: int, width: int, batch_norm: bool) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for number, level in enumerate(LEVELS, start=1):
        for letter, multiple in zip("ab", level, strict=False):
            channels = multiple * width
            parts[f"conv{number}{letter}"] = nn.Conv3d(in_channels, channels, 3, padding=1)
            if batch_norm:
                parts[f"bn{number}{letter}"] = nn.BatchNorm3d(channels)
            parts[f"relu{number}{letter}"] = nn.ReLU(inplace=True)
            in_channels = channels
        parts[f"pool{number}"] = _pool(number)
    return nn.Sequential(parts)


def _pool(number: int) -> nn.MaxPool3d:
    if number == 1:  # time is kept at first
        return nn.MaxPool3d((1, 2, 2))
    # ceil: 7 px become 4 at the last one, and short clips stay at one frame
    return nn.MaxPool3d(2, ceil_mode=True)


def _initialise(part: nn.Module) -> None:
    if isinstance(part, nn.Conv3d | nn.Linear):
        nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        if part.bias is not None:
            nn.init.zeros_(part.bias)
