"""Fully convolutional networks that tell salient pixels from the others; one family a file.

    vgg16, vgg16_bn     FCN-8s, as published with width 64 and border `published`
    squeezenet1_0       the same idea on SqueezeNet, predictions at strides 16, 8 and 4; for CPUs

Axes: B batch, C channels, H rows, W columns, K classes (0 the rest, 1 salient).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from flowsight.errors import InputError
from flowsight.systems.saliency.network import squeezenet, vgg

__all__ = ["BACKBONES", "BORDERS", "build"]

BACKBONES = ("vgg16", "vgg16_bn", "squeezenet1_0")
BORDERS = vgg.BORDERS


def build(
    *,
    backbone: str,
    num_classes: int = 2,
    width: int = 64,
    border: str = "published",
    dropout: float = 0.5,
    pretrained: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Make a network.

    Args:
        backbone: one of `BACKBONES`.
        num_classes: K.
        width: channels of VGG's first level (64 as published); of SqueezeNet only the head of
            8 * width channels follows it.
        border: `published` pads the image by 100 px as the original does, `same` keeps sizes at a
            fraction of the cost for small images; for SqueezeNet, `same` only.
        dropout: probability behind fc6 and fc7.
        pretrained: torchvision's state dict of the classifier with this name.

    Returns:
        (B, 3, H, W) float, any H and W -> scores (B, K, H, W), pixel under pixel.

    Raises:
        InputError: unknown backbone or border, weights of another network.
    """
    if backbone not in BACKBONES:
        raise InputError(
            f"expected a backbone of {', '.join(BACKBONES)}, got {backbone!r} in network.backbone"
        )
    if backbone == "squeezenet1_0":
        if border != "same":
            raise InputError(
                f"expected network.border 'same' for squeezenet1_0, which has no other, got "
                f"{border!r}"
            )
        return squeezenet.build(
            num_classes=num_classes, head=8 * width, dropout=dropout, pretrained=pretrained
        )
    return vgg.build(
        num_classes=num_classes,
        width=width,
        border=border,
        dropout=dropout,
        batch_norm=backbone.endswith("_bn"),
        pretrained=pretrained,
    )
