"""Attention learnt without Grad-CAM: from the classification loss of the other stream.

Axes: B batch, C channels, H rows, W columns, K classes.

The attention network's map M in [0, 1], made from one stream's features, is a curtain before the
other stream's input x, and what that stream still recognises is its teacher:

    loss = cross entropy( f(M x), y ) + area_weight * mean(M)

M is upsampled to x; x is normalised, so M = 0 leaves the mean picture, or no motion. Without the
second term, M = 1 everywhere would be best. The map multiplies the input here, whatever it is used
for later: the classifier f is the phase-1 network, whose map channel has seen nothing but a
constant, so the gradient through that channel says nothing about places.

f is held fixed, both networks' batch norms too. Trained along, it would learn to classify whatever
the curtain leaves, and nothing would tie the map to what the video's evidence is; and phase 2 would
start from a network that has trained for longer than that of the other rows.

Source: the idea of Dabkowski and Gal 2017, "Real Time Image Saliency for Black Box Classifiers"
(mask and area terms of equation 3), across two streams instead of within one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowsight.nn.gradcam import resize
from flowsight.systems.two_stream.maps.attention_net import AttentionNetwork
from flowsight.systems.two_stream.maps.learning import stacked

_INPUTS_AT_ONCE = 16  # through the classifier; the attention network sees the whole batch


class GatedFrame(NamedTuple):
    """One frame to learn from."""

    clip_id: str
    features: list[Tensor]
    """(C, h, w) of each target layer of the stream whose map it is, on the CPU."""
    read: Callable[[], Tensor]
    """The other stream's whole input at this frame, (C, H, W)."""
    label: int


class GatedLoss:
    """Mean loss of a batch: what `learning.fit` asks for."""

    def __init__(self, classifier: nn.Module, *, map_channel: bool, area_weight: float) -> None:
        """Keep the classifier as it is.

        Args:
            classifier: (B, C, H, W) -> logits (B, K); put in eval mode, its weights fixed.
            map_channel: whether its last input channel is a map, which the curtain leaves alone.
            area_weight: what a map of ones costs, in nats.
        """
        self.classifier = classifier.eval().requires_grad_(False)
        self.map_channel = map_channel
        self.area_weight = area_weight

    def __call__(self, network: AttentionNetwork, batch: Sequence[GatedFrame]) -> Tensor:
        """Loss of the network's maps; its gradient reaches the network's weights only."""
        maps = network(stacked(network, batch))  # (B, h, w)
        entropy, gradient = self._entropy(maps, batch)
        # the classifier's part of the graph is gone by now: its gradient stands in for it
        entropy = entropy + (maps * gradient).sum() - (maps.detach() * gradient).sum()
        return entropy + self.area_weight * maps.mean()

    def _entropy(self, maps: Tensor, batch: Sequence[GatedFrame]) -> tuple[Tensor, Tensor]:
        """Mean cross entropy, and its gradient for the maps; piece by piece, to spare memory."""
        gradient = torch.zeros_like(maps)
        total = maps.new_zeros(())
        for start in range(0, len(batch), _INPUTS_AT_ONCE):
            piece = slice(start, start + _INPUTS_AT_ONCE)
            inputs = torch.stack([frame.read() for frame in batch[piece]]).to(maps.device)
            labels = torch.tensor([frame.label for frame in batch[piece]], device=maps.device)
            with torch.set_grad_enabled(maps.requires_grad):
                own = maps[piece].detach().requires_grad_(maps.requires_grad)
                logits = self.classifier(gate(inputs, own, map_channel=self.map_channel))
                entropy = F.cross_entropy(logits.float(), labels, reduction="sum") / len(batch)
            if maps.requires_grad:
                (gradient[piece],) = torch.autograd.grad(entropy, own)
            total = total + entropy.detach()
        return total, gradient


def gate(inputs: Tensor, maps: Tensor, *, map_channel: bool) -> Tensor:
    """Multiply inputs by maps.

    Args:
        inputs: (B, C, H, W), normalised.
        maps: (B, h, w) in [0, 1], upsampled bilinearly.
        map_channel: whether the last channel is a map; it stays as it is.

    Returns:
        (B, C, H, W).
    """
    curtain = resize(maps, (inputs.shape[2], inputs.shape[3]))[:, None]  # (B, 1, H, W)
    if not map_channel:
        return inputs * curtain
    return torch.cat([inputs[:, :-1] * curtain, inputs[:, -1:]], dim=1)
