"""What moves in static-camera videos: frame by frame, at full size, with the state carried on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowsight.datasets.scenes import videos as background
from flowsight.datasets.scenes.videos import Video
from flowsight.errors import InputError, ResourceError
from flowsight.metrics.change_detection import Grey, Mask
from flowsight.nn import checkpoint, seeding
from flowsight.systems.background import counts, networks
from flowsight.systems.background.network import BackgroundNetwork, probabilities
from flowsight.systems.background.params import SceneInputParams, SceneRowParams
from flowsight.systems.background.sequences import Floats, network_input


def load(row: SceneRowParams, checkpoint_dir: Path) -> BackgroundNetwork:
    """A row's trained network in evaluation mode, on a GPU if there is one.

    Raises:
        InputError: no checkpoint, or one of another network.
    """
    network = networks.build(row)
    checkpoint.restore(network, checkpoint_dir / "model.pt")
    return network.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def moving_probabilities(
    network: BackgroundNetwork, frames: Iterable[Grey], params: SceneInputParams
) -> Iterator[Floats]:
    """How likely each pixel moves, of a video of any length or a camera.

    Memory does not grow with the video: only the state is kept, and at the start so many frames as
    the median background is made of.

    Args:
        network: in evaluation mode.
        frames: each (H, W, K) uint8, K = 3 (blue, green, red) if `params.colour`, else 1, all of
            one size.
        params: the row's.

    Yields:
        (H, W) float32 in [0, 1], one a frame; the first `background_frames` come together, when all
        of these have been seen.

    Raises:
        InputError: a frame of another size.
    """
    device = next(network.parameters()).device
    stream = iter(frames)
    first = list(islice(stream, params.background_frames))
    place = background.median_background(first) if first else None

    def inputs() -> Iterator[Tensor]:
        for frame in chain(first, stream):
            if place is not None and frame.shape != place.shape:
                raise InputError(f"expected frames of shape {place.shape}, got {frame.shape}")
            yield torch.from_numpy(network_input(frame[None], place))[:, 0].to(device)

    for probs in probabilities(network, inputs()):
        yield probs.cpu().numpy()


def predict(
    *,
    row: SceneRowParams,
    videos: Iterable[Video],
    trained_on: Iterable[str],
    checkpoint_dir: Path,
    threads: int,
    out: Path,
) -> None:
    """Run a network over videos and write what it finds (`systems.background.counts.write`).

    Args:
        row: network, input and threshold.
        videos: to run over, each from its first frame.
        trained_on: ids of those whose first half the network has seen.
        checkpoint_dir: folder with the row's `model.pt`.
        threads: CPU threads.
        out: folder to replace.

    Raises:
        InputError: videos or a checkpoint that do not fit, probabilities that are not finite.
        ResourceError: the GPU's memory does not hold a frame.
    """
    network, seen = load(row, checkpoint_dir), set(trained_on)

    def found(video: Video) -> Iterator[Mask]:
        stream = background.frames(video, colour=row.input.colour)
        for probs in moving_probabilities(network, stream, row.input):
            if not np.isfinite(probs).all():
                raise InputError(
                    f"expected finite probabilities for {video.video_id}, got others; the training "
                    "diverged: lower the row's train.lr and train again"
                )
            yield probs >= row.test.threshold

    try:
        with seeding.reproducible(threads):
            counts.write(videos, found, seen, out)
    except torch.OutOfMemoryError:
        raise ResourceError("expected a frame to fit into the GPU's memory, it did not") from None
