"""What moves in static-camera videos: frame by frame, at full size, with the state carried on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowsight.contract import Job
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


def predict(job: Job) -> None:
    """Run a network over all videos and write what it finds (`systems.background.counts.write`).

    Args:
        job: folders `scenes` and `checkpoint` are read; the split is a key of `scenes.splits`.

    Raises:
        InputError: videos or a checkpoint that do not fit, probabilities that are not finite.
        ResourceError: the GPU's memory does not hold a frame.
    """
    row, scenes = job.row, job.params.scenes
    videos = background.open_videos(job.folders["scenes"], scenes.videos)
    network = load(row, job.folders["checkpoint"])

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
        with seeding.reproducible(job.params.threads):
            counts.write(videos, found, scenes.trained_on(job.split), job.out)
    except torch.OutOfMemoryError:
        raise ResourceError("expected a frame to fit into the GPU's memory, it did not") from None
