"""Training of a network over static-camera videos, on the first halves of a split's truths."""

from __future__ import annotations

from flowsight.contract import Job, Trained
from flowsight.datasets.scenes import videos
from flowsight.systems.background import training


def train(job: Job) -> Trained:
    """Train a row on the videos of a split.

    Args:
        job: folder `scenes` is read; the split is a key of `scenes.splits`.

    Raises:
        InputError, ResourceError: as `training.fit`.
    """
    trained_on = job.params.scenes.trained_on(job.split)
    state, history = training.fit(
        row=job.row,
        row_name=job.row_name,
        videos=videos.open_videos(job.folders["scenes"], trained_on),
        seed=job.params.seed,
        threads=job.params.threads,
        scratch_key=job.scratch_key,
        log=job.log,
    )
    return Trained(state=state, history=history)
