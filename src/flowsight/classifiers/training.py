"""Training of a classifier of clips, as the stages ask for it."""

from __future__ import annotations

from types import ModuleType

from flowsight.classifiers import networks
from flowsight.contract import Job, Trained
from flowsight.training import loop


def train(job: Job, model: ModuleType) -> Trained:
    """Train a row on the training clips of a split.

    Args:
        job: folders `manifest`, `split_file` and `packs` are read (`batches.clips.load_clips`);
            also `start`, a checkpoint of the same network, and `maps`, where the row has them.
        model: the system's `network`.

    Raises:
        InputError, ResourceError: as `training.loop.fit`.
    """
    state, history = loop.fit(
        model=model,
        row=job.row,
        row_name=job.row_name,
        params=job.params,
        manifest=job.folders["manifest"],
        split=job.folders["split_file"],
        packs=job.folders["packs"],
        init=job.start,
        maps=job.folders.get("maps"),
        pretrained=networks.pretrained_weights(job.row) if job.start is None else None,
        scratch_key=job.scratch_key,
        log=job.log,
    )
    return Trained(state=state, history=history)
