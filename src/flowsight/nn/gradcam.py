"""Grad-CAM: where in the input a class's score comes from.

Axes: B batch, C channels, H rows, W columns, K classes.

For class y with score z_y (a logit) and the feature map L of a target layer, H x W in size:

    alpha_c = 1 / (H W) * sum_ij  d z_y / d L_cij          (weight of channel c)
    map     = ReLU( sum_c alpha_c L_c )                    (H, W)

Every map is divided by its maximum; a map that is zero everywhere stays zero. Several layers: each
map is upsampled bilinearly to one size and divided by its maximum, so that no layer drowns the
others (gradients grow and shrink from layer to layer); their mean is divided by its maximum again.
The thesis does not say how it combines them.

Source: Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via
Gradient-based Localization", equations 1 and 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from flowsight.errors import InputError
from flowsight.nn.backbone import check_layers


class Explanation(NamedTuple):
    """What one pass through the network gives."""

    maps: Tensor
    """(B, h, w) float in [0, 1]."""
    logits: Tensor
    """(B, K)."""
    features: list[Tensor]
    """(B, C, h, w) of each target layer."""


def grad_cam(
    network: nn.Module,
    inputs: Tensor,
    classes: Tensor,
    layers: Sequence[str],
    *,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Attention maps of given classes.

    Args:
        network: any classifier (B, ...) -> (B, K). It runs in eval mode; its mode, weights,
            buffers and gradients are as before afterwards.
        inputs: (B, C, H, W) float, on the network's device; not changed.
        classes: (B,) integer, the class to explain for each input.
        layers: names of the target layers, each with a (B, C, h, w) output.
        size: (H, W) of the maps; None: the largest target layer's.

    Returns:
        (B, h, w) float in [0, 1].

    Raises:
        InputError: an unknown layer, one without a feature map, or classes that do not fit.
    """
    return explain(network, inputs, classes, layers, size=size).maps


def explain(
    network: nn.Module,
    inputs: Tensor,
    classes: Tensor,
    layers: Sequence[str],
    *,
    size: tuple[int, int] | None = None,
) -> Explanation:
    """As `grad_cam`, with the logits and the features of the same pass."""
    # detached weights: no graph is built before the first target layer
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    with _evaluating(network), torch.enable_grad(), _features(network, layers, grad=True) as seen:
        logits = functional_call(network, weights, (inputs.detach(),))
        _check_classes(classes, logits)
        # inputs do not mix in eval mode, so one sum gives every input's own gradient
        score = logits.gather(1, classes.long()[:, None]).sum()
        features = _in_order(seen, layers)
        gradients = torch.autograd.grad(score, features)
    features = [feature.detach() for feature in features]
    maps = [_weighted_sum(*pair) for pair in zip(features, gradients, strict=True)]
    maps_size = largest_size(features) if size is None else size
    scaled = [normalise(resize(m, maps_size)) for m in maps]
    return Explanation(normalise(combine(scaled, maps_size)), logits.detach(), features)


def layer_features(network: nn.Module, inputs: Tensor, layers: Sequence[str]) -> list[Tensor]:
    """Features of the target layers, without any class: (B, C, h, w) each."""
    with _evaluating(network), torch.no_grad(), _features(network, layers, grad=False) as seen:
        network(inputs)
        return _in_order(seen, layers)


def largest_size(features: Sequence[Tensor]) -> tuple[int, int]:
    """(h, w) of the largest feature map."""
    height, width = max((f.shape[-2:] for f in features), key=lambda s: s[0] * s[1])
    return int(height), int(width)


def combine(maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Bring (B, h, w) maps to one size, bilinearly, and average them."""
    scaled = [resize(m, size) for m in maps]
    return torch.stack(scaled).mean(dim=0) if len(scaled) > 1 else scaled[0]


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, h, w) -> (B, *size), bilinear."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def normalise(maps: Tensor) -> Tensor:
    """Divide each of (B, h, w) non-negative maps by its maximum; zero stays zero."""
    peaks = maps.amax(dim=(1, 2), keepdim=True)
    return maps / torch.where(peaks > 0, peaks, torch.ones_like(peaks))


def _weighted_sum(feature: Tensor, gradient: Tensor) -> Tensor:
    alpha = gradient.mean(dim=(2, 3))  # (B, C)
    return F.relu(torch.einsum("bc,bchw->bhw", alpha, feature))


def _check_classes(classes: Tensor, logits: Tensor) -> None:
    if logits.ndim != 2:
        raise InputError(f"expected logits (B, K), got shape {tuple(logits.shape)}")
    if classes.shape != logits.shape[:1]:
        raise InputError(
            f"expected one class per input, ({len(logits)},), got shape {tuple(classes.shape)}"
        )
    if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < logits.shape[1]:
        raise InputError(f"expected classes in 0..{logits.shape[1] - 1}, got {classes.tolist()}")


def _in_order(seen: dict[str, Tensor], layers: Sequence[str]) -> list[Tensor]:
    for layer in layers:
        if layer not in seen:
            raise InputError(f"expected layer {layer!r} to run in the network, but it does not")
    return [seen[layer] for layer in layers]


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode inside, every module's own mode restored after."""
    modes = [(part, part.training) for part in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def _features(
    network: nn.Module, layers: Sequence[str], *, grad: bool
) -> Iterator[dict[str, Tensor]]:
    """Catch the outputs of layers by name; with `grad` the graph begins at the first of them."""
    check_layers(network, layers)
    seen: dict[str, Tensor] = {}

    def catch(name: str, output: object) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise InputError(
                f"expected a layer with a (B, C, H, W) output in network.target_layers, got "
                f"{name!r}; choose a convolutional block"
            )
        if grad and not output.requires_grad:
            output = output.detach().requires_grad_()
        seen[name] = output
        return output.clone()  # the next module may work in place

    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: catch(name, output)
        )
        for name in layers
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
