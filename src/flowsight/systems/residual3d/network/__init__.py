"""Networks over clips by name, with or without attention; one family a file.

    resnet3d_10, _18, _34, _50     residual
    densenet3d_12, _24             dense, by growth rate
    c3d, c3d_bn                    plain; it has no shortcut, so no attention

Axes: B batch, C channels, T frames, H rows, W columns, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from flowsight.errors import InputError
from flowsight.nn import checkpoint
from flowsight.systems.residual3d.network import c3d, densenet, resnet
from flowsight.systems.residual3d.network.attention import Attend, SpatialAttention
from flowsight.systems.residual3d.network.attention import factory as block_attention

__all__ = [
    "BACKBONES",
    "SpatialAttention",
    "block_attention",
    "build",
    "load_pretrained",
    "spatial_attentions",
]

BACKBONES = (
    *(f"resnet3d_{depth}" for depth in resnet.BLOCKS),
    "densenet3d_12",
    "densenet3d_24",
    "c3d",
    "c3d_bn",
)
CHANNELS = {"rgb": 3, "flow": 2}
"""Input channels of a frame, or of a flow field (u, v)."""


def build(
    *,
    backbone: str,
    modality: str,
    num_classes: int,
    width: int = 64,
    dropout: float = 0.0,
    attention: Attend | None = None,
    pretrained: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Make a network.

    Args:
        backbone: one of `BACKBONES`.
        modality: "rgb" or "flow".
        num_classes: K.
        width: channels of the first level; the dense networks, whose channels follow from the
            growth rate, take 64 only.
        dropout: probability before the last layer.
        attention: made by `block_attention`; None: the baseline.
        pretrained: state dict of the same network without attention, on any number of classes
            and any modality (torchvision's `r3d_18` for resnet3d_18).

    Returns:
        (B, C, T, H, W) float -> logits (B, K); C is 3 for RGB, 2 for flow.

    Raises:
        InputError: unknown backbone or modality, switches that it does not have, weights of
            another network.
    """
    if backbone not in BACKBONES:
        raise InputError(
            f"expected a backbone of {', '.join(BACKBONES)}, got {backbone!r} in network.backbone"
        )
    if modality not in CHANNELS:
        raise InputError(f"expected modality rgb or flow, got {modality!r} in input.modality")
    network = _create(backbone, num_classes, CHANNELS[modality], width, dropout, attention)
    if pretrained is not None:
        load_pretrained(network, pretrained, name=backbone)
    return network


def _create(
    backbone: str,
    num_classes: int,
    in_channels: int,
    width: int,
    dropout: float,
    attention: Attend | None,
) -> nn.Module:
    family, _, number = backbone.partition("_")
    if family == "resnet3d":
        return resnet.build(
            depth=int(number),
            num_classes=num_classes,
            in_channels=in_channels,
            width=width,
            dropout=dropout,
            attention=attention,
        )
    if family == "densenet3d":
        if width != 64:
            raise InputError(f"expected network.width of 64 for {backbone}, got {width}")
        return densenet.build(
            growth=int(number),
            num_classes=num_classes,
            in_channels=in_channels,
            dropout=dropout,
            attention=attention,
        )
    if attention is not None:
        raise InputError(f"expected no attention for {backbone}, which has no shortcut to add")
    return c3d.build(
        num_classes=num_classes,
        in_channels=in_channels,
        width=width,
        dropout=dropout,
        batch_norm=number == "bn",
    )


def load_pretrained(network: nn.Module, state: Mapping[str, Tensor], *, name: str) -> None:
    """Put weights of the same network, trained on other classes, into it.

    The last layer stays as drawn where the classes differ; so do the attention modules that the
    weights lack. For flow the first kernels are the mean over the RGB ones, in both channels.

    Args:
        network: made by `build`.
        state: name -> tensor.
        name: of the backbone, for messages.

    Raises:
        InputError: weights of another network.
    """
    own = network.state_dict()
    first, last = next(iter(own)), list(own)[-2:]  # kernels of the stem; weight and bias of the end
    given = dict(state)
    for key in last:
        if key in given and given[key].shape != own[key].shape:
            given[key] = own[key]
    if first in given and given[first].shape[1] == 3 and own[first].shape[1] == CHANNELS["flow"]:
        given[first] = given[first].mean(dim=1, keepdim=True).expand_as(own[first])
    given |= {k: v for k, v in own.items() if k not in given and ".attention." in k}
    problem = checkpoint.differences(own, given)
    if problem:
        raise InputError(
            f"expected the weights of {name}, got {problem}; bring the file of the same network"
        )
    network.load_state_dict(given)


def spatial_attentions(network: nn.Module, level: str) -> list[SpatialAttention]:
    """Spatial attention modules of a level (`layer2`, `block1`), in the order of the data.

    Raises:
        InputError: the network has no such level, or no spatial attention in it.
    """
    found = [
        part
        for name, part in network.named_modules()
        if name.startswith(f"{level}.") and isinstance(part, SpatialAttention)
    ]
    if not found:
        levels = sorted(
            {
                name.partition(".")[0]
                for name, part in network.named_modules()
                if isinstance(part, SpatialAttention)
            }
        )
        raise InputError(
            f"expected a level with spatial attention ({', '.join(levels) or 'it has none'}), got "
            f"{level!r} in network.target_layers"
        )
    return found
