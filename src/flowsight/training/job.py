"""What the train stages do: parameters in, a tracked training, checkpoint and history out."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from flowsight import contract, files, tracking
from flowsight.params import config
from flowsight.params.config import Params
from flowsight.pipeline import dvc_yaml
from flowsight.training import schedule


def train(
    row: str,
    *,
    manifest: Path,
    split: Path,
    packs: Path,
    stage: str,
    out: Path,
    history: Path,
    init: Path | None = None,
    maps: Path | None = None,
) -> None:
    """Train a row of `params.yaml` and write its checkpoint and history.

    Args:
        row: key of `rows`.
        manifest, split, packs, maps: see `batches.clips.load_clips`.
        stage: its name in `dvc.yaml`; all that goes into it is the key of the scratch folder.
        out: folder for `model.pt`.
        history: CSV, a line an epoch.
        init: folder of the checkpoint to go on from (phase 2).
    """
    params = config.load()
    row_params = params.row(row)
    stage_hash = dvc_yaml.stage_key(stage)
    with tracked(out.name, row, params, split, stage, stage_hash) as log:
        # after the tracker has started: both take seconds to load, each on its own core
        from flowsight.classifiers import networks
        from flowsight.nn import checkpoint
        from flowsight.training import loop, resume

        key = f"{stage}/{stage_hash}"
        state, epochs = loop.fit(
            model=contract.part(params.owner(row), "network"),
            row=row_params,
            row_name=row,
            params=params,
            manifest=manifest,
            split=split,
            packs=packs,
            init=init,
            maps=maps,
            pretrained=networks.pretrained_weights(row_params) if init is None else None,
            scratch_key=key,
            log=log,
        )
        with files.atomic_dir(out) as folder:
            checkpoint.save(state, folder / "model.pt")
        schedule.write_history(epochs, history)
        resume.discard(key)


def tracked(
    name: str, row: str, params: Params, split: Path, stage: str, stage_hash: str
) -> AbstractContextManager[tracking.Log]:
    """Record the training of a row (`tracking.run`) with what went into it."""
    train = params.row(row).train
    tags = {
        "dataset": params.dataset.name,
        "recipe": params.recipe,
        "row": row,
        "split": split.stem,
        "stage": stage,
        "stage_hash": stage_hash,
        "bit_reproducible": str(schedule.is_bit_reproducible(train)),
        "micro_batch": str(schedule.micro_batch(train)),
    }
    everything = asdict(params.row(row)) | {"seed": params.seed, "threads": params.threads}
    return tracking.run(name, params=everything, tags=tags)
