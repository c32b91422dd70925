"""FCN-8s on VGG-16: predictions at strides 32, 16 and 8, interpolated and summed.

Axes: B batch, C channels, H rows, W columns, K classes.

    conv1_1 ... conv5_3, pool1 ... pool5, fc6 (7x7), fc7 (1x1), score_fr (1x1)
    score = upscore2(score_fr) + score_pool4(pool4)
    score = upscore_pool4(score) + score_pool3(pool3)
    upscore8(score), cropped to the image

Where things lie (in px of the image; m and j are indices in a map): a pooling of 2 puts sample m
of stride s at s m + (s - 1) / 2 - b, where b is what the border shifts. `published` pads the image
by 100 and fc6 by nothing: b = 99, and score_fr's m lies at 32 m + 12.5. A deconvolution of stride f
and kernel 2f puts index j at (j - f + 1/2) / f of its input's indices. So upscore2's j lies at
16 j - 11.5, which is where pool4's m = j + 5 is; upscore_pool4's at 8 j - 23.5, pool3's m = j + 9;
upscore8's at pixel j - 31: the original's crops, exact to the pixel. `same` pads by 1 and fc6 by 3:
b = 0, and the maps differ by half a kernel and the extension (`upsampling.Upsample`).

Sources: Long, Shelhamer and Darrell 2015, "Fully convolutional networks for semantic segmentation"
(zero scores at the start, dropout behind fc6 and fc7); Simonyan and Zisserman 2015.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from flowsight.errors import InputError
from flowsight.nn import checkpoint
from flowsight.systems.saliency.network.upsampling import Upsample, crop

LEVELS = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))
"""Convolutions before each pooling, and their channels as multiples of the width."""
BORDERS: dict[str, tuple[int, int, tuple[int, int, int]]] = {
    "published": (100, 0, (5, 9, 31)),
    "same": (1, 3, (3, 3, 12)),
}
"""Border -> padding of conv1_1 and of fc6; where the crops at pool4, pool3 and the image begin
(`published` crops the skips, `same` what was upsampled)."""
CONVOLUTIONS = tuple(
    f"conv{level}_{i}" for level, (count, _) in enumerate(LEVELS, 1) for i in range(1, count + 1)
)


def build(
    *,
    num_classes: int = 2,
    width: int = 64,
    border: str = "published",
    dropout: float = 0.5,
    batch_norm: bool = False,
    pretrained: Mapping[str, Tensor] | None = None,
) -> FCN8s:
    """Make the network.

    Args:
        num_classes: K.
        width: channels of conv1_1; fc6 and fc7 have 64 times as many. 64 as published.
        border: key of `BORDERS`.
        dropout: probability behind fc6 and fc7.
        batch_norm: behind each convolution of the five levels; not in the original.
        pretrained: state dict of torchvision's `vgg16` (or `vgg16_bn`): its two wide layers become
            fc6 and fc7, its last one is left out. Or one of this network.

    Returns:
        (B, 3, H, W) float, any H and W -> scores (B, K, H, W).

    Raises:
        InputError: unknown border, weights of another network.
    """
    if border not in BORDERS:
        raise InputError(
            f"expected network.border of {', '.join(BORDERS)}, got {border!r}; see models/saliency"
        )
    network = FCN8s(
        num_classes=num_classes, width=width, border=border, dropout=dropout, batch_norm=batch_norm
    )
    if pretrained is not None:
        load_pretrained(network, pretrained)
    return network


class FCN8s(nn.Module):
    """Convolutions of five levels under their names in the paper, the head, the skips."""

    def __init__(
        self, *, num_classes: int, width: int, border: str, dropout: float, batch_norm: bool
    ) -> None:
        super().__init__()
        first, last, self.offsets = BORDERS[border]
        extend = border == "same"
        self.published = not extend
        channels, padding = 3, first
        for level, (count, multiple) in enumerate(LEVELS, start=1):
            for i in range(1, count + 1):
                conv = nn.Conv2d(channels, multiple * width, 3, padding=padding)
                self.add_module(f"conv{level}_{i}", conv)
                if batch_norm:
                    self.add_module(f"bn{level}_{i}", nn.BatchNorm2d(multiple * width))
                channels, padding = multiple * width, 1
        self.batch_norm = batch_norm
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.dropout = nn.Dropout(dropout)
        self.fc6 = nn.Conv2d(channels, 64 * width, 7, padding=last)
        self.fc7 = nn.Conv2d(64 * width, 64 * width, 1)
        self.score_fr = nn.Conv2d(64 * width, num_classes, 1)
        self.score_pool4 = nn.Conv2d(LEVELS[3][1] * width, num_classes, 1)
        self.score_pool3 = nn.Conv2d(LEVELS[2][1] * width, num_classes, 1)
        self.upscore2 = Upsample(num_classes, 4, 2, extend=extend)
        self.upscore_pool4 = Upsample(num_classes, 4, 2, extend=extend)
        self.upscore8 = Upsample(num_classes, 16, 8, extend=extend)
        self._initialise()

    def _initialise(self) -> None:
        for name, part in self.named_modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
                if name.startswith("score_"):
                    nn.init.zeros_(part.weight)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    def forward_features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """pool3, pool4 and pool5: (B, 3, H, W) -> (B, C, h, w) at strides 8, 16 and 32."""
        pooled = []
        for level, (count, _) in enumerate(LEVELS, start=1):
            for i in range(1, count + 1):
                x = getattr(self, f"conv{level}_{i}")(x)
                if self.batch_norm:
                    x = getattr(self, f"bn{level}_{i}")(x)
                x = self.relu(x)
            x = self.pool(x)
            pooled.append(x)
        return pooled[2], pooled[3], pooled[4]

    def forward(self, x: Tensor) -> Tensor:
        """Scores: (B, 3, H, W) -> (B, K, H, W)."""
        pool3, pool4, pool5 = self.forward_features(x)
        wide = self.dropout(self.relu(self.fc6(pool5)))
        wide = self.dropout(self.relu(self.fc7(wide)))
        score = self.upscore2(self.score_fr(wide))
        score = self._fuse(score, self.score_pool4(pool4), self.offsets[0])
        score = self.upscore_pool4(score)
        score = self._fuse(score, self.score_pool3(pool3), self.offsets[1])
        return crop(self.upscore8(score), x, self.offsets[2])

    def _fuse(self, score: Tensor, skip: Tensor, offset: int) -> Tensor:
        if self.published:  # the padded image's maps are larger than what lies above the image
            return score + crop(skip, score, offset)
        return crop(score, skip, offset) + skip


def load_pretrained(network: FCN8s, state: Mapping[str, Tensor]) -> None:
    """Put torchvision's VGG-16, or weights of this network, into it; scores stay where missing.

    Raises:
        InputError: weights of another network.
    """
    own = network.state_dict()
    given = _renamed(state, network) if "features.0.weight" in state else dict(state)
    for part in (
        "score_",
        "upscore",
    ):  # what a classifier has not, and other classes have otherwise
        given |= {
            key: tensor
            for key, tensor in own.items()
            if key.startswith(part) and (key not in given or given[key].shape != tensor.shape)
        }
    problem = checkpoint.differences(own, given)
    if problem:
        raise InputError(
            f"expected the weights of torchvision's vgg16{'_bn' if network.batch_norm else ''} or "
            f"of this FCN-8s, got {problem}; choose another file in start.weights"
        )
    network.load_state_dict(given)


def _renamed(state: Mapping[str, Tensor], network: FCN8s) -> dict[str, Tensor]:
    """torchvision's names and shapes as this network's; names that do not fit stay."""
    norms = [name.replace("conv", "bn") for name in CONVOLUTIONS] if network.batch_norm else []
    names = [n for pair in zip(CONVOLUTIONS, norms, strict=True) for n in pair] if norms else [
        *CONVOLUTIONS
    ]  # fmt: skip
    numbers = sorted({int(key.split(".")[1]) for key in state if key.startswith("features.")})
    new = {f"features.{n}": name for n, name in zip(numbers, names, strict=False)}
    new |= {"classifier.0": "fc6", "classifier.3": "fc7"}
    renamed = {}
    for key, tensor in state.items():
        module, _, kind = key.rpartition(".")
        if module == "classifier.6":
            continue
        name = new.get(module, module)
        if name in ("fc6", "fc7") and kind == "weight":
            kernel = network.get_submodule(name).get_parameter("weight").shape[-1]
            side = kernel if tensor.shape[1] % kernel**2 == 0 else 1
            tensor = tensor.reshape(len(tensor), -1, side, side)
        renamed[f"{name}.{kind}"] = tensor
    return renamed
