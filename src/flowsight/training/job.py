"""What the train stages do, for every system: a tracked training, checkpoint and history out."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from typing import Any

from flowsight import contract, files, tracking
from flowsight.contract import Job
from flowsight.params.training import TrainParams
from flowsight.training import schedule


def train(job: Job) -> None:
    """Train a row by its system's `train` and write what it learnt.

    Args:
        job: `out` becomes the folder with `model.pt`, folder `history` a CSV, a line an epoch.
    """
    with tracked(job) as log:
        # after the tracker has started: both take seconds to load, each on its own core
        own = contract.part(job.system, "train")
        from flowsight.nn import checkpoint
        from flowsight.training import resume

        trained = own.train(replace(job, log=log))
        with files.atomic_dir(job.out) as folder:
            checkpoint.save(trained.state, folder / "model.pt")
        schedule.write_history(trained.history, job.folders["history"])
        resume.discard(job.scratch_key)


def tracked(job: Job) -> AbstractContextManager[tracking.Log]:
    """Record the training of a row (`tracking.run`) with what went into it."""
    stage, _, stage_hash = job.scratch_key.rpartition("/")
    tags = {
        # checkpoints/<data set>/<row>-<split>
        "dataset": job.out.parent.name,
        "recipe": job.params.recipe,
        "system": job.system,
        "row": job.row_name,
        "split": job.split,
        "stage": stage,
        "stage_hash": stage_hash,
        **_cut(job.row.train),
    }
    everything = asdict(job.row) | {"seed": job.params.seed, "threads": job.params.threads}
    return tracking.run(job.out.name, params=everything, tags=tags)


def _cut(train: Any) -> dict[str, str]:
    """Whether the machine cuts the batches, by which sums differ a little."""
    if not isinstance(train, TrainParams):  # a loop of its own, which cuts none
        return {"bit_reproducible": "True"}
    return {
        "bit_reproducible": str(schedule.is_bit_reproducible(train)),
        "micro_batch": str(schedule.micro_batch(train)),
    }
