"""3D residual networks, with or without attention in each block before the shortcut is added.

Axes: B batch, C channels, T frames, H rows, W columns, K classes.

Without attention the networks of depth 18, 34 and 50 are torchvision's `VideoResNet` with plain 3D
convolutions: modules and weights have its names, so `r3d_18`'s state dict loads as it is. With
attention each block has one module more, `attention`.

Sources: He et al. 2016, "Deep residual learning"; Hara et al. 2018, "Can spatiotemporal 3D CNNs
retrace the history of 2D CNNs and ImageNet?"; Tran et al. 2018 (the stem without pooling).
"""

from __future__ import annotations

from torch import Tensor, nn

from flowsight.errors import InputError
from flowsight.systems.residual3d.network.attention import Attend

BLOCKS: dict[int, tuple[int, int, int, int]] = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
}
"""Depth -> blocks of layer1 ... layer4; from 50 on they are bottlenecks."""


def build(
    *,
    depth: int,
    num_classes: int,
    in_channels: int = 3,
    width: int = 64,
    dropout: float = 0.0,
    attention: Attend | None = None,
) -> ResNet3D:
    """Make the network.

    Args:
        depth: 10, 18, 34 (basic blocks) or 50 (bottlenecks).
        num_classes: K.
        in_channels: C of the input.
        width: channels of the stem and of layer1; 64 as published.
        dropout: probability before the last layer; 0 as published.
        attention: channels -> module, put into each block (see `attention.factory`); None: plain.

    Returns:
        (B, C, T, H, W) float -> logits (B, K); levels are called `layer1` ... `layer4`.

    Raises:
        InputError: unknown depth.
    """
    if depth not in BLOCKS:
        raise InputError(f"expected a depth of {', '.join(map(str, BLOCKS))}, got {depth}")
    network = ResNet3D(
        depth=depth,
        num_classes=num_classes,
        in_channels=in_channels,
        width=width,
        dropout=dropout,
        attention=attention,
    )
    _initialise(network)
    return network


class ResNet3D(nn.Module):
    """Stem, four levels of blocks, global average, dropout, `fc`."""

    def __init__(
        self,
        *,
        depth: int,
        num_classes: int,
        in_channels: int,
        width: int,
        dropout: float,
        attention: Attend | None,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(  # (B, width, T, H/2, W/2)
            nn.Conv3d(
                in_channels, width, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False
            ),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
        kind = Bottleneck if depth >= 50 else BasicBlock
        channels = width
        for number, count in enumerate(BLOCKS[depth]):
            blocks = []
            for i in range(count):
                stride = 2 if number > 0 and i == 0 else 1
                block = kind(channels, width * 2**number, stride=stride, attention=attention)
                blocks.append(block)
                channels = width * 2**number * kind.expansion
            # (B, channels, T/2^number, H/2^(number+1), W/2^(number+1)), rounded up
            self.add_module(f"layer{number + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Last feature map: (B, C, T, H, W) -> (B, D, T/8, H/16, W/16), rounded up."""
        x = self.stem(x)
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        return x

    def forward_head(self, features: Tensor) -> Tensor:
        """Logits of the last feature map: (B, D, t, h, w) -> (B, K)."""
        logits: Tensor = self.fc(self.dropout(self.avgpool(features).flatten(1)))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Logits: (B, C, T, H, W) -> (B, K)."""
        return self.forward_head(self.forward_features(x))


class BasicBlock(nn.Module):
    """Two 3x3x3 convolutions, attention, the shortcut, ReLU."""

    expansion = 1

    def __init__(
        self, in_channels: int, channels: int, *, stride: int, attention: Attend | None
    ) -> None:
        super().__init__()
        self.conv1 = _conv_bn(in_channels, channels, 3, stride=stride, relu=True)
        self.conv2 = _conv_bn(channels, channels, 3)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, channels, stride)
        self.attention = None if attention is None else attention(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, channels, T/stride, H/stride, W/stride)."""
        return _add_shortcut(self, x, self.conv2(self.conv1(x)))


class Bottleneck(nn.Module):
    """1x1x1, 3x3x3 and 1x1x1 convolutions, attention, the shortcut, ReLU."""

    expansion = 4

    def __init__(
        self, in_channels: int, channels: int, *, stride: int, attention: Attend | None
    ) -> None:
        super().__init__()
        wide = channels * self.expansion
        self.conv1 = _conv_bn(in_channels, channels, 1, relu=True)
        self.conv2 = _conv_bn(channels, channels, 3, stride=stride, relu=True)
        self.conv3 = _conv_bn(channels, wide, 1)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, wide, stride)
        self.attention = None if attention is None else attention(wide)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, 4 * channels, T/stride, H/stride, W/stride)."""
        return _add_shortcut(self, x, self.conv3(self.conv2(self.conv1(x))))


def _add_shortcut(block: BasicBlock | Bottleneck, x: Tensor, residual: Tensor) -> Tensor:
    if block.attention is not None:
        residual = block.attention(residual)
    shortcut = x if block.downsample is None else block.downsample(x)
    added: Tensor = block.relu(residual + shortcut)
    return added


def _conv_bn(
    in_channels: int, channels: int, kernel: int, *, stride: int = 1, relu: bool = False
) -> nn.Sequential:
    conv = nn.Conv3d(in_channels, channels, kernel, stride=stride, padding=kernel // 2, bias=False)
    parts: list[nn.Module] = [conv, nn.BatchNorm3d(channels)]
    return nn.Sequential(*parts, *([nn.ReLU(inplace=True)] if relu else []))


def _shortcut(in_channels: int, channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == channels:
        return None
    return _conv_bn(in_channels, channels, 1, stride=stride)


def _initialise(network: nn.Module) -> None:
    for name, part in network.named_modules():
        # attention keeps the small weights it is made with: larger ones start its sigmoid far out
        if isinstance(part, nn.Conv3d) and ".attention." not in name:
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
