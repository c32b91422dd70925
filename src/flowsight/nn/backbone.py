"""Image classifiers by name: torchvision's, and our `tiny`; their weights, layers and surgery.

torchvision is imported only when one of its networks is asked for.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flowsight.errors import InputError
from flowsight.nn import checkpoint
from flowsight.nn.blocks import LAST_BLOCKS

TARGET_LAYERS: dict[str, str] = {name: blocks[-1] for name, blocks in LAST_BLOCKS.items()}
"""Backbone -> its last convolutional block, the usual layer for Grad-CAM."""

# Ported from TensorFlow: first convolution and the batch norm after it. Their weights expect
# (x - 0.5) / 0.5, which torchvision's `transform_input` makes of ImageNet-normalised input.
_TENSORFLOW_INPUT = {
    "googlenet": ("conv1.conv.weight", "conv1.bn.running_mean"),
    "inception_v3": ("Conv2d_1a_3x3.conv.weight", "Conv2d_1a_3x3.bn.running_mean"),
}
_HEAD = ("fc", "classifier", "head_relu")
_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def check_name(name: str) -> None:
    """Refuse an unknown backbone.

    Raises:
        InputError: `name` is not in `TARGET_LAYERS`.
    """
    if name not in TARGET_LAYERS:
        raise InputError(
            f"expected a backbone of {', '.join(TARGET_LAYERS)}, got {name!r} in network.backbone"
        )


def create(name: str, *, num_classes: int, init_weights: bool = True) -> nn.Module:
    """Make an untrained classifier of three channels, as its authors have it.

    Args:
        name: key of `TARGET_LAYERS`.
        num_classes: K.
        init_weights: False leaves out the slow initialisation of the Inception networks, for
            weights that are loaded anyway.

    Returns:
        (B, 3, H, W) -> (B, K). No auxiliary heads, `transform_input` off.

    Raises:
        InputError: unknown name.
    """
    check_name(name)
    if name == "tiny":
        from flowsight.nn import tiny

        return tiny.build(num_classes=num_classes)
    import torchvision.models

    options: dict[str, Any] = {}
    if name in _TENSORFLOW_INPUT:
        options = {"aux_logits": False, "transform_input": False, "init_weights": init_weights}
    network: nn.Module = getattr(torchvision.models, name)(
        weights=None, num_classes=num_classes, **options
    )
    return network


def pretrained_state(name: str) -> dict[str, Tensor]:
    """ImageNet weights of torchvision (its first set, "IMAGENET1K_V1"); downloads them.

    Raises:
        InputError: unknown name, or one without such weights.
    """
    check_name(name)
    if name == "tiny":
        raise InputError(
            "expected start.weights null or a file for backbone 'tiny', got 'imagenet'; "
            "this network has no ImageNet weights"
        )
    import torchvision.models

    network = torchvision.models.get_model(name, weights="IMAGENET1K_V1")
    return dict(network.state_dict())


def load_pretrained(network: nn.Module, state: Mapping[str, Tensor], *, name: str) -> None:
    """Put weights in torchvision's format into a three-channel classifier.

    The last layer is left as it is where the number of classes differs. Auxiliary heads are
    dropped. For the networks ported from TensorFlow the change of normalisation that torchvision
    makes in `forward` is folded into the first convolution and batch norm (exact for
    inception_v3, whose first convolution has no padding), so that ImageNet-normalised input is
    right as it is.

    Args:
        network: from `create(name)`, not yet widened.
        state: weights of the same backbone, trained on any number of classes.
        name: the backbone, for messages.

    Raises:
        InputError: weights of another backbone.
    """
    expected = network.state_dict()
    state = {_modern(key, name): v for key, v in state.items() if not key.startswith(_AUXILIARY)}
    last = classifier_name(network)
    for key in (f"{last}.weight", f"{last}.bias"):
        if key in state and state[key].shape[1:] == expected[key].shape[1:]:
            state[key] = state[key] if state[key].shape == expected[key].shape else expected[key]
    for key, tensor in expected.items():  # files of old releases do not count batches
        if key.endswith("num_batches_tracked"):
            state.setdefault(key, tensor)
    problem = checkpoint.differences(expected, state)
    if problem:
        raise InputError(
            f"expected pretrained weights of {name}, got {problem}; "
            "choose the file of this backbone in start.weights"
        )
    if name in _TENSORFLOW_INPUT:
        state = _fold_normalisation(state, *_TENSORFLOW_INPUT[name])
    network.load_state_dict(state)


def _modern(key: str, name: str) -> str:
    """DenseNet files on the download server still say `norm.1.` for `norm1.`."""
    return re.sub(r"(norm|conv)\.([12])\.", r"\1\2.", key) if name.startswith("dense") else key


def _fold_normalisation(state: Mapping[str, Tensor], kernel: str, mean: str) -> dict[str, Tensor]:
    """Make weights for (x - 0.5) / 0.5 take (x - mean) / std: y = x * scale + shift."""
    folded = dict(state)
    scale = torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1) / 0.5
    shift = (torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1) - 0.5) / 0.5
    folded[kernel] = state[kernel] * scale
    folded[mean] = state[mean] - (state[kernel] * shift).sum(dim=(1, 2, 3))
    return folded


def first_convolution(network: nn.Module) -> str:
    """Name of the convolution that sees the input."""
    return next(name for name, part in network.named_modules() if isinstance(part, nn.Conv2d))


def classifier_name(network: nn.Module) -> str:
    """Name of the last layer with weights (a convolution in SqueezeNet)."""
    kinds = (nn.Linear, nn.Conv2d)
    return [name for name, part in network.named_modules() if isinstance(part, kinds)][-1]


def replace_module(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` in the place called `name` ("features.0")."""
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


def widen(network: nn.Module, in_channels: int) -> nn.Conv2d:
    """Give the first convolution another number of input channels, freshly initialised.

    He initialisation over the fan in, so activations keep their size whatever the number of
    channels; the bias is kept.

    Returns:
        The new convolution, already in its place.
    """
    name = first_convolution(network)
    old = network.get_submodule(name)
    assert isinstance(old, nn.Conv2d)
    new = nn.Conv2d(
        in_channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]  # annotated as a longer tuple than it takes
        stride=old.stride,  # type: ignore[arg-type]
        padding=old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    nn.init.kaiming_uniform_(new.weight, nonlinearity="relu")
    if new.bias is not None and old.bias is not None:
        new.bias.data.copy_(old.bias.data)
    replace_module(network, name, new)
    return new


def check_layers(network: nn.Module, layers: Sequence[str]) -> None:
    """Refuse layer names that the network does not have.

    Raises:
        InputError: no layer, or an unknown one; lists the blocks that there are.
    """
    if not layers:
        raise InputError("expected at least one layer in network.target_layers, got none")
    known = [name for name, _ in network.named_modules() if name]
    for layer in layers:
        if layer not in known:
            blocks = block_names(network)
            close = difflib.get_close_matches(layer, known, n=1, cutoff=0.75)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise InputError(
                f"expected a layer of the network in network.target_layers, got {layer!r}{hint}; "
                f"its blocks: {', '.join(blocks)}"
            )


def block_names(network: nn.Module) -> list[str]:
    """The network's convolutional blocks by name, in order: `layer4`, `Mixed_7c`, `features.12`."""
    names = []
    for name, part in network.named_children():
        inside = [f"{name}.{child}" for child, _ in part.named_children()]
        names += inside if name == "features" else [name]
    return [n for n in names if n.split(".")[0] not in _HEAD and not _only_shapes(network, n)]


def _only_shapes(network: nn.Module, name: str) -> bool:
    """Pooling, dropout, flattening: nothing to look at that the block before does not have."""
    kind = type(network.get_submodule(name)).__name__
    return "Pool" in kind or kind in ("Dropout", "Flatten")
