"""Training over static-camera videos: truncated back-propagation through time, a plain loop.

A batch is some sequences side by side. Each is cut into chunks of a few frames; a chunk ends in a
step of Adam, and the state, cut from its history, is carried to the next. Lightning's Trainer has
no such loop, so `training` is not used; what holds there holds here: an epoch is a function of the
parameters, (seed, epoch) and the state at its start, and a training that was killed ends in the
same bytes as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowsight.datasets.scenes.videos import Video
from flowsight.errors import InputError, ResourceError
from flowsight.nn import seeding
from flowsight.systems.background import loss as segmentation
from flowsight.systems.background import networks, sequences
from flowsight.systems.background.network import BackgroundNetwork, State
from flowsight.systems.background.params import SceneRowParams, SceneTrainParams
from flowsight.systems.background.sequences import TrainingVideo
from flowsight.training import resume
from flowsight.training.epoch_progress import EpochProgress

Log = Callable[[Mapping[str, float], int], None]
_MAX_NORM = 1.0
"""Gradients are cut to this norm: a recurrent network's may explode."""
_WARMUP_PIECE = 20
"""Frames of a warm-up that are computed together."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One line of the history."""

    epoch: int
    """Counted from 1."""
    lr: float
    train_loss: float
    """Binary cross entropy per scored pixel, with dropout and moving weights."""
    train_f: float
    """F-measure of the same; 0 where nothing moved and nothing was found."""


def fit(
    *,
    row: SceneRowParams,
    row_name: str,
    videos: Sequence[Video],
    seed: int,
    threads: int,
    scratch_key: str,
    log: Log,
) -> tuple[dict[str, Tensor], list[Epoch]]:
    """Train a row on the first halves of some videos' truths.

    Args:
        row: network, input and optimisation.
        row_name: for messages.
        videos: which.
        seed, threads: of the parameters.
        scratch_key: `<stage>/<hash>`; state under it, if any, is gone on from. It stays until the
            caller, having written the outputs, calls `training.resume.discard`.
        log: called with the metrics of each epoch and its number.

    Returns:
        State dict on the CPU after the last epoch, and the history.

    Raises:
        InputError: videos that do not fit the parameters, or a loss that is not finite.
        ResourceError: the device's memory does not hold a batch.
    """
    loaded = [sequences.load(video, row.input) for video in videos]
    for video in loaded:
        sequences.check_length(video, row.train)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with seeding.reproducible(threads):
        seeding.seed_everything(seed)
        network = networks.build(row).to(device).train()
        # foreach=False: the same sums on every device, and no slower for so few weights
        optimizer = torch.optim.Adam(network.parameters(), lr=row.train.lr, foreach=False)
        history = _restore(resume.load(scratch_key), network, optimizer)
        display = EpochProgress(
            f"train {row_name}", row.train.epochs, row.train.batches, len(history)
        )
        try:
            for epoch in range(len(history), row.train.epochs):
                history.append(
                    _epoch(network, optimizer, loaded, row, seed, epoch, display, device)
                )
                _check_finite(history[-1], row_name)
                measured = asdict(history[-1])
                log(measured, history[-1].epoch)
                resume.save(_state(network, optimizer, history), scratch_key)
                display.epoch_done(measured, last=epoch + 1 == row.train.epochs)
        except torch.OutOfMemoryError:
            raise ResourceError(
                f"expected {row.train.batch_size} sequences of {row.train.chunk_frames} frames to "
                f"fit into the GPU's memory, they did not; lower rows.{row_name}.train."
                "batch_size or chunk_frames"
            ) from None
        finally:
            display.close()
    return {name: tensor.cpu() for name, tensor in network.state_dict().items()}, history


def learning_rate(params: SceneTrainParams, epoch: int) -> float:
    """Learning rate of an epoch, counted from 0: constant, or half a cosine wave towards 0."""
    if params.schedule == "cosine":
        return params.lr * (1 + math.cos(math.pi * epoch / params.epochs)) / 2
    return params.lr


def _epoch(
    network: BackgroundNetwork,
    optimizer: torch.optim.Adam,
    videos: Sequence[TrainingVideo],
    row: SceneRowParams,
    seed: int,
    epoch: int,
    display: EpochProgress,
    device: torch.device,
) -> Epoch:
    lr = optimizer.param_groups[0]["lr"] = learning_rate(row.train, epoch)
    seeding.seed_everything(seed, epoch + 1)  # dropout
    rng = np.random.default_rng([seed, epoch + 1])  # sequences
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    for frames, truth in _drawn(videos, row, rng):
        sums += _batch(network, optimizer, frames.to(device), truth.to(device), row.train)
        display.batch_done()
    loss, pixels, tp, errors = sums.tolist()
    return Epoch(
        epoch=epoch + 1,
        lr=lr,
        train_loss=loss / max(pixels, 1),
        train_f=2 * tp / max(2 * tp + errors, 1),
    )


def _drawn(
    videos: Sequence[TrainingVideo], row: SceneRowParams, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """An epoch's batches, each drawn while the one before is trained on."""

    def draw() -> tuple[Tensor, Tensor]:
        frames, truth = sequences.draw(videos, row.input, row.train, rng)
        return torch.from_numpy(frames), torch.from_numpy(truth)

    with ThreadPoolExecutor(max_workers=1) as pool:
        following = pool.submit(draw)
        for left in reversed(range(row.train.batches)):
            batch = following.result()
            if left:
                following = pool.submit(draw)
            yield batch


def _batch(
    network: BackgroundNetwork,
    optimizer: torch.optim.Adam,
    frames: Tensor,
    truth: Tensor,
    params: SceneTrainParams,
) -> Tensor:
    """Go through sequences, a step a chunk.

    Args:
        frames: (B, C, T, H, W).
        truth: (B, T, H, W) uint8.

    Returns:
        Sums of loss, scored pixels, true positives and errors, float64.
    """
    state: State | None = None
    # piece by piece: a GPU's memory need not hold a long warm-up's gates
    for start in range(0, params.warmup_frames, _WARMUP_PIECE):
        with torch.no_grad():
            part = slice(start, min(start + _WARMUP_PIECE, params.warmup_frames))
            _, state = network(frames[:, :, part], state)
    sums = torch.zeros(4, dtype=torch.float64, device=frames.device)
    for chunk in range(params.chunks):
        start = params.warmup_frames + chunk * params.chunk_frames
        part = slice(start, start + params.chunk_frames)
        logits, state = network(frames[:, :, part], state)
        state = state.detach()
        scored = segmentation.score(logits, truth[:, part])
        if not scored.pixels:  # all of it before the truth begins
            continue
        optimizer.zero_grad()
        (scored.loss / scored.pixels).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), _MAX_NORM)
        optimizer.step()
        values = (scored.loss.detach(), scored.pixels, scored.tp, scored.errors)
        sums += torch.stack([value.double() for value in values])
    return sums


def _check_finite(epoch: Epoch, row_name: str) -> None:
    if not math.isfinite(epoch.train_loss):
        raise InputError(
            f"expected a finite training loss, got {epoch.train_loss} in epoch {epoch.epoch} of "
            f"{row_name}; lower rows.{row_name}.train.lr (it was {epoch.lr:g})"
        )


def _state(
    network: BackgroundNetwork, optimizer: torch.optim.Adam, history: Sequence[Epoch]
) -> dict[str, Any]:
    return {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": [asdict(epoch) for epoch in history],
    }


def _restore(
    state: dict[str, Any] | None, network: BackgroundNetwork, optimizer: torch.optim.Adam
) -> list[Epoch]:
    if state is None:
        return []
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return [Epoch(**values) for values in state["history"]]
