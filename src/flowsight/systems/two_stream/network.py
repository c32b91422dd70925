"""One stream of the two-stream network: RGB or flow, plus the other stream's attention map.

Axes: B batch, C channels, H rows, W columns, K classes, m stacked flow fields.

Input channels are the modality's first (3 for RGB; u1 v1 ... um vm for flow), the map last.

Sources: Simonyan and Zisserman 2014 (two streams); Wang et al. 2016, "Temporal Segment Networks"
(cross-modality initialisation, partial batch norm); the map channel follows the spatio-temporal
attention networks of the thesis this project starts from.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from flowsight.errors import InputError
from flowsight.nn import backbone as backbones

_HEAD = ("avgpool", "dropout", "fc", "classifier")


def build(
    *,
    backbone: str,
    modality: str,
    num_classes: int,
    stack_length: int = 5,
    map_channel: bool = True,
    dropout: float = 0.5,
    pretrained: Mapping[str, Tensor] | None = None,
) -> StreamNetwork:
    """Make one stream's network.

    The first convolution with pretrained weights w (mean over the RGB kernels: w_mean):

    - RGB: w as it is. Flow: w_mean for each of the 2m channels (TSN's cross-modality
      initialisation).
    - Map: w_mean too. A map of value t then changes the first layer as if the picture were
      brighter by t / 3 standard deviations: the constant 0.1 is worth 2 of 255 grey levels, which
      pretrained features do not notice, and a map's peak 19, a spotlight that phase 2 can use
      from its first step. (Zeros would disturb nothing, but then the map stays unseen for as long
      as fine-tuning takes to grow a kernel.)

    Without pretrained weights the widened convolution is drawn afresh.

    Args:
        backbone: name from `backbone.TARGET_LAYERS`.
        modality: "rgb" or "flow".
        num_classes: K.
        stack_length: m, for flow only.
        map_channel: whether an attention map is the last channel.
        dropout: probability of every dropout layer; one is put before the classifier of a
            backbone that has none.
        pretrained: weights of the backbone in torchvision's format (see
            `backbone.pretrained_state`), trained on any number of classes; None: untrained.

    Returns:
        (B, C, H, W) float -> logits (B, K). Modules and weights are called as in torchvision.

    Raises:
        InputError: unknown backbone or modality, weights of another backbone.
    """
    channels = num_channels(modality, stack_length=stack_length, map_channel=map_channel)
    if num_classes < 1:
        raise InputError(f"expected at least one class, got {num_classes}")
    network = backbones.create(backbone, num_classes=num_classes, init_weights=pretrained is None)
    if pretrained is not None:
        backbones.load_pretrained(network, pretrained, name=backbone)
    if channels != 3 or modality != "rgb":
        name = backbones.first_convolution(network)
        kernels = network.get_submodule(name).get_parameter("weight").detach()
        conv = backbones.widen(network, channels)
        if pretrained is not None:
            conv.weight.data.copy_(input_kernels(kernels, modality, channels))
    stream = StreamNetwork(network)
    set_dropout(stream, dropout)
    # a third faster on CPUs; weights, names and results stay
    return stream.to(memory_format=torch.channels_last)


def num_channels(modality: str, *, stack_length: int, map_channel: bool) -> int:
    """Input channels: 3 or 2m, and one for the map.

    Raises:
        InputError: unknown modality or no flow field.
    """
    if modality not in ("rgb", "flow"):
        raise InputError(f"expected modality rgb or flow, got {modality!r} in input.modality")
    if modality == "flow" and stack_length < 1:
        raise InputError(f"expected input.stack_length of at least 1, got {stack_length}")
    return (3 if modality == "rgb" else 2 * stack_length) + int(map_channel)


def input_kernels(kernels: Tensor, modality: str, channels: int) -> Tensor:
    """Kernels of the widened first convolution, from those for RGB.

    Args:
        kernels: (O, 3, h, w), trained on RGB.
        modality: "rgb" or "flow".
        channels: input channels C of the result.

    Returns:
        (O, C, h, w): mean over RGB in every channel that is not RGB itself.
    """
    wide = kernels.mean(dim=1, keepdim=True).repeat(1, channels, 1, 1)
    if modality == "rgb":
        wide[:, :3] = kernels
    return wide


class StreamNetwork(nn.Module):
    """A torchvision classifier cut in two: features (a map) and head (logits).

    The classifier's modules become this network's own, under their names, so that torchvision's
    weights and layer names ("features.12", "Mixed_7c", "layer4") stay valid.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        parts = dict(network.named_children())
        head = next(name for name in parts if name in _HEAD)
        self.feature_names = list(parts)[: list(parts).index(head)]
        for name in self.feature_names:
            self.add_module(name, parts[name])
        self.head_names = self._add_head(network, parts)

    def _add_head(self, network: nn.Module, parts: Mapping[str, nn.Module]) -> list[str]:
        """Modules after the features; torchvision hides some of them in `forward`."""
        last = "fc" if "fc" in parts else "classifier"
        if any(isinstance(part, nn.Conv2d) for part in parts[last].modules()):
            # SqueezeNet pools in there. Its ReLU behind the last convolution is left out: logits
            # need not be positive (in one comparison it changed little, see docs/results.md)
            classifier = parts[last]
            for name, part in classifier.named_children():
                if isinstance(part, nn.ReLU):
                    setattr(classifier, name, nn.Identity())
            head = {last: classifier, "flatten": nn.Flatten()}
        else:
            head = {
                "avgpool": parts.get("avgpool", nn.AdaptiveAvgPool2d(1)),
                "flatten": nn.Flatten(),
                last: parts[last],
            }
        if type(network).__name__ == "DenseNet":
            head = {"head_relu": nn.ReLU(), **head}
        if not any(isinstance(part, nn.Dropout) for part in parts[last].modules()):
            head = {**head, "dropout": parts.get("dropout", nn.Dropout()), last: head.pop(last)}
        for name, part in head.items():
            self.add_module(name, part)
        return list(head)

    def forward_features(self, x: Tensor) -> Tensor:
        """Last feature map: (B, C, H, W) -> (B, D, h, w)."""
        for name in self.feature_names:
            x = getattr(self, name)(x)
        return x

    def forward_head(self, features: Tensor) -> Tensor:
        """Logits of the last feature map: (B, D, h, w) -> (B, K)."""
        for name in self.head_names:
            features = getattr(self, name)(features)
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Logits: (B, C, H, W) -> (B, K)."""
        return self.forward_head(self.forward_features(x))


def set_dropout(network: nn.Module, probability: float) -> None:
    """Set every dropout layer (not stochastic depth, which belongs to the architecture)."""
    for part in network.modules():
        if isinstance(part, nn.Dropout):
            part.p = probability


def freeze_batch_norm(network: nn.Module, *, keep_first: bool = True) -> int:
    """TSN's partial batch norm: use the pretrained statistics and stop training them.

    `network.train()` wakes them again, so call this after it, in every epoch.

    Args:
        network: changed in place: batch norm layers go to eval mode, their scale and shift get
            no gradient.
        keep_first: leave out the first one, whose input distribution is new for flow.

    Returns:
        How many layers were frozen.
    """
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    norms = norms[1:] if keep_first else norms
    for norm in norms:
        norm.eval()
        for parameter in norm.parameters():
            parameter.requires_grad_(False)
    return len(norms)
