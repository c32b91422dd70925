"""A fully convolutional network on SqueezeNet 1.0: predictions at strides 16, 8 and 4.

Axes: B batch, C channels, H rows, W columns, K classes.

    features.0 ... features.12 of torchvision, fc6 (3x3), fc7 (1x1), score_fr (1x1)
    score = upscore2(score_fr) + score_pool3(features.10)
    score = upscore_pool3(score) + score_pool2(features.5)
    upscore4(score), cropped to the image

Where things lie: the first convolution, 7x7 with stride 2, is padded by 3 here (torchvision's by
nothing), so its sample m lies on pixel 2 m; a 3x3 pooling of stride 2 puts its m on sample 2 m + 1
of its input: features.5's m on pixel 4 m + 2, features.10's on 8 m + 6, features.12's on 16 m + 14.
Samples lie on samples, so kernels are odd: deconvolution of stride 2 and kernel 3 puts input m on
index 2 m + 1, exactly as the poolings do, and the last one, of stride 4 and kernel 7, on 4 m + 3.

Source: Iandola et al. 2016, "SqueezeNet"; the head and the skips follow FCN-8s.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from flowsight.errors import InputError
from flowsight.nn import checkpoint
from flowsight.systems.saliency.network.upsampling import Upsample, crop

SKIPS = (5, 10)
"""Modules of `features` whose output is predicted from too, at strides 4 and 8."""
_LAST = 12
# index 0 of an extended map lies one input sample further out, that is `factor` indices
_OFFSETS = (2, 2, 5)
_SMALLEST = 16
"""Poolings of smaller images have nothing left to pool."""


def build(
    *,
    num_classes: int = 2,
    head: int = 512,
    dropout: float = 0.5,
    pretrained: Mapping[str, Tensor] | None = None,
) -> FCNSqueezeNet:
    """Make the network.

    Args:
        num_classes: K.
        head: channels of fc6 and fc7.
        dropout: probability behind fc6 and fc7.
        pretrained: state dict of torchvision's `squeezenet1_0`, whose classifier is left out; or
            one of this network.

    Returns:
        (B, 3, H, W) float, any H and W -> scores (B, K, H, W).

    Raises:
        InputError: weights of another network.
    """
    network = FCNSqueezeNet(num_classes=num_classes, head=head, dropout=dropout)
    if pretrained is not None:
        load_pretrained(network, pretrained)
    return network


class FCNSqueezeNet(nn.Module):
    """torchvision's `features` under their names, the head, the skips."""

    def __init__(self, *, num_classes: int, head: int, dropout: float) -> None:
        super().__init__()
        from torchvision.models import squeezenet1_0

        self.features = squeezenet1_0(weights=None).features[: _LAST + 1]
        self.features[0].padding = (3, 3)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)
        self.fc6 = nn.Conv2d(512, head, 3, padding=1)
        self.fc7 = nn.Conv2d(head, head, 1)
        self.score_fr = nn.Conv2d(head, num_classes, 1)
        self.score_pool3 = nn.Conv2d(512, num_classes, 1)
        self.score_pool2 = nn.Conv2d(256, num_classes, 1)
        self.upscore2 = Upsample(num_classes, 3, 2, extend=True)
        self.upscore_pool3 = Upsample(num_classes, 3, 2, extend=True)
        self.upscore4 = Upsample(num_classes, 7, 4, extend=True)
        for layer in (self.fc6, self.fc7):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # it has one
        for layer in (self.score_fr, self.score_pool3, self.score_pool2):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward_features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps at strides 4, 8 and 16: (B, 3, H, W) -> (B, C, h, w) each."""
        found = []
        for number, part in enumerate(self.features):
            x = part(x)
            if number in (*SKIPS, _LAST):
                found.append(x)
        return found[0], found[1], found[2]

    def forward(self, x: Tensor) -> Tensor:
        """Scores: (B, 3, H, W) -> (B, K, H, W)."""
        below, right = (max(0, _SMALLEST - side) for side in x.shape[-2:])
        fine, middle, coarse = self.forward_features(F.pad(x, (0, right, 0, below)))
        wide = self.dropout(self.relu(self.fc6(coarse)))
        wide = self.dropout(self.relu(self.fc7(wide)))
        score, skip = self.upscore2(self.score_fr(wide)), self.score_pool3(middle)
        score = crop(score, skip, _OFFSETS[0]) + skip
        score, skip = self.upscore_pool3(score), self.score_pool2(fine)
        score = crop(score, skip, _OFFSETS[1]) + skip
        return crop(self.upscore4(score), x, _OFFSETS[2])


def load_pretrained(network: FCNSqueezeNet, state: Mapping[str, Tensor]) -> None:
    """Put torchvision's SqueezeNet, or weights of this network, into it.

    Raises:
        InputError: weights of another network.
    """
    own = network.state_dict()
    given = {key: tensor for key, tensor in state.items() if not key.startswith("classifier.")}
    fresh = [key for key in own if not key.startswith("features.") and key not in given]
    given |= {key: own[key] for key in fresh}
    problem = checkpoint.differences(own, given)
    if problem:
        raise InputError(
            f"expected the weights of torchvision's squeezenet1_0 or of this network, got "
            f"{problem}; choose another file in start.weights"
        )
    network.load_state_dict(given)
