"""Networks that tell expressions; all split into features (convolutions) and head.

    vgg16, vgg16_bn, squeezenet1_0    torchvision's, with a last layer of K classes; three channels
    vgg_fer    four levels of two 3x3 conv-BN-ReLU and a pooling, three linear layers; grey, 40 px
    tiny       the same with three levels and two linear layers; grey, 48 px; for CPUs

Axes: B batch, C channels, H rows, W columns, K classes.

Sources: Simonyan and Zisserman 2015; Iandola et al. 2016; Khaireddin and Chen 2021, "Facial Emotion
Recognition: State of the Art Performance on FER2013" (levels and linear layers of `vgg_fer`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from flowsight.errors import InputError
from flowsight.nn import backbone as backbones
from flowsight.systems.expression_recognition.params import BACKBONES, OWN

_LEVELS = {"vgg_fer": ((1, 2, 4, 8), 2), "tiny": ((1, 2, 4), 6)}
"""Channels of each level as multiples of the width; side of the last map at the usual input."""
_WIDTH = {"vgg_fer": 64, "tiny": 16}


def build(
    *,
    backbone: str,
    num_classes: int,
    width: int | None = None,
    dropout: float = 0.5,
    pretrained: Mapping[str, Tensor] | None = None,
) -> Expressions:
    """Make a network.

    Args:
        backbone: one of `BACKBONES`.
        num_classes: K.
        width: channels of the first level of `vgg_fer` and `tiny`; None: 64 and 16.
        dropout: probability between the linear layers (before the last convolution of SqueezeNet).
        pretrained: state dict of this classifier, of any number of classes.

    Returns:
        (B, C, H, W) float -> logits (B, K); C is `in_channels`.

    Raises:
        InputError: unknown backbone, or weights of another network.
    """
    if backbone not in BACKBONES:
        raise InputError(
            f"expected a backbone of {', '.join(BACKBONES)}, got {backbone!r} in network.backbone"
        )
    if backbone in OWN:
        network = _own(backbone, num_classes, width or _WIDTH[backbone], dropout)
    else:
        network = _torchvision(backbone, num_classes, dropout)
    if pretrained is not None:
        backbones.load_pretrained(network, pretrained, name=backbone)
    return network


def target_layer(backbone: str) -> str:
    """The last convolutional block, where Grad-CAM looks."""
    if backbone in OWN:
        return f"features.level{len(_LEVELS[backbone][0])}.relu2"
    return backbones.TARGET_LAYERS[backbone]


class Expressions(nn.Module):
    """`features`, `avgpool`, `classifier`: torchvision's names, so that its weights fit."""

    def __init__(
        self, features: nn.Module, avgpool: nn.Module, classifier: nn.Module, *, in_channels: int
    ) -> None:
        super().__init__()
        self.features, self.avgpool, self.classifier = features, avgpool, classifier
        self.in_channels = in_channels
        self.frozen = False

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the last map (B, D, h, w)."""
        features: Tensor = self.features(x)
        return features

    def forward_head(self, x: Tensor) -> Tensor:
        """(B, D, h, w) -> logits (B, K)."""
        x = self.classifier(self.avgpool(x))
        return x.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def freeze(self) -> None:
        """Let the convolutions, with their batch norms' means, be what they are."""
        self.frozen = True
        self.features.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Expressions:
        """As always, but frozen convolutions stay in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.features.eval()
        return self


def _torchvision(name: str, num_classes: int, dropout: float) -> Expressions:
    made = backbones.create(name, num_classes=num_classes)
    for part in made.modules():
        if isinstance(part, nn.Dropout):
            part.p = dropout
    features, classifier = made.get_submodule("features"), made.get_submodule("classifier")
    if name == "squeezenet1_0":
        return Expressions(features, nn.Identity(), classifier, in_channels=3)
    flat = nn.Sequential(OrderedDict(pool=made.get_submodule("avgpool"), flatten=nn.Flatten()))
    return Expressions(features, flat, classifier, in_channels=3)


def _own(name: str, num_classes: int, width: int, dropout: float) -> Expressions:
    factors, side = _LEVELS[name]
    levels: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 1
    for number, factor in enumerate(factors, 1):
        levels[f"level{number}"] = _level(channels, factor * width)
        channels = factor * width
    hidden = 64 * width if name == "vgg_fer" else 8 * width
    sizes = [channels * side * side, *([hidden] * (2 if name == "vgg_fer" else 1))]
    head: list[nn.Module] = []
    for before, after in pairwise(sizes):
        head += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
    head.append(nn.Linear(sizes[-1], num_classes))
    pool = nn.Sequential(_Fit(side), nn.Flatten())
    return Expressions(nn.Sequential(levels), pool, nn.Sequential(*head), in_channels=1)


class _Fit(nn.Module):
    """Averages a map down to h x h; at the usual input's size there is nothing to do."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[-2:]) == (self.side, self.side):
            return x
        return torch.nn.functional.adaptive_avg_pool2d(x, self.side)


def _level(in_channels: int, channels: int) -> nn.Sequential:
    """Two convolutions and a pooling: (B, C, H, W) -> (B, channels, H / 2, W / 2)."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for number in (1, 2):
        conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        parts[f"conv{number}"] = conv
        parts[f"bn{number}"] = nn.BatchNorm2d(channels)
        parts[f"relu{number}"] = nn.ReLU()
        in_channels = channels
    parts["pool"] = nn.MaxPool2d(2)
    return nn.Sequential(parts)
