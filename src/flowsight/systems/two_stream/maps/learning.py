"""Training the attention network: it learns Grad-CAM's maps from the features alone.

Binary cross entropy with the maps as soft targets, Adam, 8:2 of the training clips (never frames:
neighbouring frames are almost equal) for training and for choosing the epoch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from flowsight.errors import InputError
from flowsight.nn.gradcam import largest_size
from flowsight.progress import track
from flowsight.systems.two_stream.maps import attention_net
from flowsight.systems.two_stream.maps.attention_net import AttentionNetwork


class Frame(Protocol):
    """A frame of a training clip, whatever is learnt from it."""

    @property
    def clip_id(self) -> str:
        """Clips are never split between training and validation."""

    @property
    def features(self) -> Sequence[Tensor]:
        """(C, h, w) of each target layer, on the CPU."""


Item = TypeVar("Item", bound=Frame)
Loss = Callable[[AttentionNetwork, list[Item]], Tensor]


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
    return fit(
        examples,
        _against_maps,
        hidden_channels=hidden_channels,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        val_share=val_share,
        seed=seed,
        device=device,
    )


def fit(
    examples: Sequence[Item],
    loss: Loss[Item],
    *,
    hidden_channels: int,
    epochs: int,
    batch_size: int,
    lr: float,
    val_share: float,
    seed: int,
    device: torch.device | str = "cpu",
) -> Learnt:
    """As `learn`, with any frames and any loss.

    Args:
        examples: frames of training clips.
        loss: network and frames of one size -> mean loss, with a graph in training.

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
        cut = batches(train, batch_size, generator)
        train_loss = _train_epoch(network, optimizer, loss, cut)
        val_loss = _mean_loss(network, loss, batches(val, batch_size, None))
        history.append({"epoch": epoch, "train_loss": train_loss, "val_loss": val_loss})
        if val_loss < best:
            best, state = val_loss, copy.deepcopy(network.state_dict())
    network.load_state_dict(state)
    return Learnt(network.eval(), history)


def split_by_clip(
    examples: Sequence[Item], val_share: float, seed: int
) -> tuple[list[Item], list[Item]]:
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
    examples: Sequence[Item], batch_size: int, generator: torch.Generator | None
) -> list[list[Item]]:
    """Cut into batches of frames of one size, shuffled where a generator is given."""
    count = len(examples)
    order = torch.randperm(count, generator=generator).tolist() if generator else range(count)
    by_size: dict[tuple[torch.Size, ...], list[Item]] = {}
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


def _initial(example: Frame, hidden_channels: int, seed: int) -> AttentionNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        channels = [len(feature) for feature in example.features]
        return attention_net.build(in_channels=channels, hidden_channels=hidden_channels)


def _train_epoch(
    network: AttentionNetwork,
    optimizer: torch.optim.Optimizer,
    loss: Loss[Item],
    cut: Sequence[list[Item]],
) -> float:
    network.train()
    total, count = 0.0, 0
    for batch in cut:
        optimizer.zero_grad()
        mean = loss(network, batch)
        mean.backward()
        optimizer.step()
        total, count = total + mean.item() * len(batch), count + len(batch)
    return total / count


@torch.no_grad()
def _mean_loss(network: AttentionNetwork, loss: Loss[Item], cut: Sequence[list[Item]]) -> float:
    network.eval()
    total, count = 0.0, 0
    for batch in cut:
        total += loss(network, batch).item() * len(batch)
        count += len(batch)
    return total / count


def _against_maps(network: AttentionNetwork, batch: Sequence[Example]) -> Tensor:
    """Binary cross entropy with Grad-CAM's maps as soft targets."""
    features = stacked(network, batch)
    target = torch.stack([example.target for example in batch]).to(features[0].device)
    assert target.shape[-2:] == largest_size(features)
    return F.binary_cross_entropy(network(features), target)


def stacked(network: AttentionNetwork, batch: Sequence[Frame]) -> list[Tensor]:
    """Features of a batch on the network's device, (B, C, h, w) of each layer."""
    device = next(network.parameters()).device
    layers = zip(*(example.features for example in batch), strict=True)
    return [torch.stack(layer).to(device) for layer in layers]
