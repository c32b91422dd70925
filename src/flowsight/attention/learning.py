"""Training the attention network: it learns Grad-CAM's maps from the features alone.

Binary cross entropy with the maps as soft targets, Adam, 8:2 of the training clips (never frames:
neighbouring frames are almost equal) for training and for choosing the epoch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from flowsight.attention import attention_net
from flowsight.attention.attention_net import AttentionNetwork
from flowsight.attention.gradcam import largest_size
from flowsight.errors import InputError
from flowsight.progress import track


class Example(NamedTuple):
    """One frame to learn from."""

    clip_id: str
    features: list[Tensor]
    """(C, h, w) of each target layer, on the CPU."""
    target: Tensor
    """(h, w) Grad-CAM map in [0, 1], at the largest layer's size."""


class Learnt(NamedTuple):
    """What training gives."""

    network: AttentionNetwork
    """With the weights of the best epoch, in eval mode."""
    history: list[dict[str, float]]
    """Rows: epoch, train_loss, val_loss."""


def learn(
    examples: Sequence[Example],
    *,
    hidden_channels: int,
    epochs: int,
    batch_size: int,
    lr: float,
    val_share: float,
    seed: int,
    device: torch.device | str = "cpu",
) -> Learnt:
    """Train an attention network and keep the epoch with the lowest validation loss.

    Args:
        examples: frames of training clips; sizes may differ between clips, channels not.
        hidden_channels: width of the network.
        epochs: passes over the training part.
        batch_size: frames per step.
        lr: Adam's step size.
        val_share: share of the clips kept for choosing the epoch.
        seed: decides initial weights, the split and the order; global generators stay as they are.
        device: where to train.

    Raises:
        InputError: no example.
    """
    if not examples:
        raise InputError("expected training clips to learn attention from, got none")
    train, val = split_by_clip(examples, val_share, seed)
    network = _initial(examples[0], hidden_channels, seed).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(seed)
    history: list[dict[str, float]] = []
    best, state = float("inf"), copy.deepcopy(network.state_dict())
    for epoch in track(range(epochs), "attention network"):
        train_loss = _train_epoch(network, optimizer, batches(train, batch_size, generator))
        val_loss = _loss(network, batches(val, batch_size, None))
        history.append({"epoch": epoch, "train_loss": train_loss, "val_loss": val_loss})
        if val_loss < best:
            best, state = val_loss, copy.deepcopy(network.state_dict())
    network.load_state_dict(state)
    return Learnt(network.eval(), history)


def split_by_clip(
    examples: Sequence[Example], val_share: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Cut examples into a training and a validation part with no clip on both sides.

    At least one clip goes to each side; a single clip is on both, for want of another.
    """
    clips = sorted({example.clip_id for example in examples})
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(clips), generator=generator).tolist()
    num_val = min(max(round(val_share * len(clips)), 1), max(len(clips) - 1, 1))
    chosen = {clips[i] for i in order[:num_val]}
    val = [example for example in examples if example.clip_id in chosen]
    train = [example for example in examples if example.clip_id not in chosen]
    return train or val, val


def batches(
    examples: Sequence[Example], batch_size: int, generator: torch.Generator | None
) -> list[list[Example]]:
    """Cut into batches of frames of one size, shuffled where a generator is given."""
    count = len(examples)
    order = torch.randperm(count, generator=generator).tolist() if generator else range(count)
    by_size: dict[tuple[torch.Size, ...], list[Example]] = {}
    for i in order:
        key = tuple(feature.shape for feature in examples[i].features)
        by_size.setdefault(key, []).append(examples[i])
    cut = [
        group[start : start + batch_size]
        for group in by_size.values()
        for start in range(0, len(group), batch_size)
    ]
    if generator:
        cut = [cut[i] for i in torch.randperm(len(cut), generator=generator).tolist()]
    return cut


def _initial(example: Example, hidden_channels: int, seed: int) -> AttentionNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        channels = [len(feature) for feature in example.features]
        return attention_net.build(in_channels=channels, hidden_channels=hidden_channels)


def _train_epoch(
    network: AttentionNetwork, optimizer: torch.optim.Optimizer, cut: Sequence[list[Example]]
) -> float:
    network.train()
    total, count = 0.0, 0
    for features, target in _stacked(network, cut):
        optimizer.zero_grad()
        loss = F.binary_cross_entropy(network(features), target)
        loss.backward()
        optimizer.step()
        total, count = total + loss.item() * len(target), count + len(target)
    return total / count


@torch.no_grad()
def _loss(network: AttentionNetwork, cut: Sequence[list[Example]]) -> float:
    network.eval()
    total, count = 0.0, 0
    for features, target in _stacked(network, cut):
        total += F.binary_cross_entropy(network(features), target).item() * len(target)
        count += len(target)
    return total / count


def _stacked(
    network: AttentionNetwork, cut: Sequence[list[Example]]
) -> Iterator[tuple[list[Tensor], Tensor]]:
    """Batches as tensors on the network's device: [(B, C, h, w) ...], (B, h, w)."""
    device = next(network.parameters()).device
    for batch in cut:
        layers = zip(*(example.features for example in batch), strict=True)
        features = [torch.stack(layer).to(device) for layer in layers]
        target = torch.stack([example.target for example in batch]).to(device)
        assert target.shape[-2:] == largest_size(features)
        yield features, target
