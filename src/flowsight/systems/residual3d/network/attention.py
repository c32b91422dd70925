"""Channel and spatial attention for feature maps over time: what matters, and where.

Axes: B batch, C channels, T frames, H rows, W columns, R hidden channels.

    Mc(F) = sigma( MLP(AvgPool F) + MLP(MaxPool F) )       over (T, H, W), one weight a channel
    Ms(F) = sigma( f([AvgPool F; MaxPool F]) )             over C, one weight a place

Both multiply the map they are computed from. Inside a residual block they stand after the
convolutions and before the shortcut is added.

Sources: Woo et al. 2018, "CBAM: Convolutional block attention module"; the 3D residual attention
network this system follows puts it over time as well.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from flowsight.errors import InputError

Attend = Callable[[int], nn.Module]
"""Channels -> an attention module for them."""

ORDERS = ("channel_first", "spatial_first")
KERNELS: dict[str, tuple[int, int, int]] = {"7x7": (1, 7, 7), "7x7x7": (7, 7, 7)}
"""Filter of the spatial attention: each frame by itself, or over time as well."""


class ChannelAttention(nn.Module):
    """Mc: a weight in (0, 1) for each channel of a clip, from its mean and its maximum.

    Args:
        channels: C.
        reduction: R = max(1, C // reduction); the MLP is C -> R -> C with a ReLU, without biases,
            and shared by both poolings.
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        if reduction < 1:
            raise InputError(f"expected a reduction of at least 1, got {reduction}")
        hidden = max(1, channels // reduction)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, channels, bias=False),
        )

    def weights(self, x: Tensor) -> Tensor:
        """Mc: (B, C, T, H, W) -> (B, C, 1, 1, 1) in (0, 1)."""
        pooled = torch.stack([x.mean(dim=(2, 3, 4)), x.amax(dim=(2, 3, 4))])  # (2, B, C)
        return self.mlp(pooled).sum(dim=0).sigmoid()[..., None, None, None]

    def forward(self, x: Tensor) -> Tensor:
        """Mc(F) * F: (B, C, T, H, W), the shape stays."""
        return x * self.weights(x)


class SpatialAttention(nn.Module):
    """Ms: a weight in (0, 1) for each place and time of a clip, from mean and maximum of channels.

    Args:
        kernel: "7x7" (each frame by itself) or "7x7x7"; zeros beyond the border, no bias.
    """

    def __init__(self, *, kernel: str = "7x7x7") -> None:
        super().__init__()
        if kernel not in KERNELS:
            raise InputError(f"expected a kernel of {', '.join(KERNELS)}, got {kernel!r}")
        size = KERNELS[kernel]
        padding = (size[0] // 2, size[1] // 2, size[2] // 2)
        self.conv = nn.Conv3d(2, 1, size, padding=padding, bias=False)

    def weights(self, x: Tensor) -> Tensor:
        """Ms: (B, C, T, H, W) -> (B, 1, T, H, W) in (0, 1)."""
        pooled = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        weights: Tensor = self.conv(pooled).sigmoid()  # (B, 2, T, H, W) -> (B, 1, T, H, W)
        return weights

    def forward(self, x: Tensor) -> Tensor:
        """Ms(F) * F: (B, C, T, H, W), the shape stays."""
        return x * self.weights(x)


def build(
    channels: int,
    *,
    channel: bool = True,
    spatial: bool = True,
    order: str = "channel_first",
    reduction: int = 16,
    kernel: str = "7x7x7",
) -> nn.Sequential:
    """One or both attentions, one after the other.

    Args:
        channels: C.
        channel, spatial: which of them, at least one.
        order: "channel_first" (the paper's) or "spatial_first".
        reduction: of the channel attention's MLP.
        kernel: of the spatial attention.

    Returns:
        (B, C, T, H, W) -> the same shape; children `channel` and `spatial` in their order.

    Raises:
        InputError: neither attention, an unknown order or kernel.
    """
    if order not in ORDERS:
        raise InputError(f"expected an order of {', '.join(ORDERS)}, got {order!r}")
    if not (channel or spatial):
        raise InputError("expected channel or spatial attention, got neither")
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if channel:
        parts["channel"] = ChannelAttention(channels, reduction=reduction)
    if spatial:
        parts["spatial"] = SpatialAttention(kernel=kernel)
    names = list(parts) if order == "channel_first" else list(parts)[::-1]
    return nn.Sequential(OrderedDict((name, parts[name]) for name in names))


def factory(
    *,
    channel: bool,
    spatial: bool,
    order: str = "channel_first",
    reduction: int = 16,
    kernel: str = "7x7x7",
) -> Attend | None:
    """`build` with its switches set, for networks that have many; None if both are off."""
    if not (channel or spatial):
        return None
    return partial(
        build, channel=channel, spatial=spatial, order=order, reduction=reduction, kernel=kernel
    )
