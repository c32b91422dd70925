"""Training of a network over images: with all its kernels, or on from another row's, slimmed."""

from __future__ import annotations

from flowsight.classifiers import networks
from flowsight.contract import Job, Trained
from flowsight.systems.saliency import training


def train(job: Job) -> Trained:
    """Train a row on the training pairs of a split.

    Args:
        job: folders `raw` and `items` (`datasets.images.pairs`) are read, and `start`, the
            checkpoint that is slimmed and goes on, if the row has one.

    Raises:
        InputError, ResourceError: as `training.fit`.
    """
    start = job.row.start
    state, history = training.fit(
        row_name=job.row_name,
        block=job.block,
        raw=job.folders["raw"],
        pairs=job.folders["items"],
        split_id=job.split,
        seed=job.params.seed,
        threads=job.params.threads,
        scratch_key=job.scratch_key,
        log=job.log,
        init=job.start,
        pretrained=(
            networks.named_weights(start.weights, job.row.network.backbone)
            if job.start is None
            else None
        ),
    )
    return Trained(state=state, history=history)
