"""What the stages of networks over images do: parameters in, checkpoint and history out."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from flowsight import files, tracking
from flowsight.params import config
from flowsight.params.config import Params
from flowsight.pipeline import dvc_yaml
from flowsight.systems.saliency.params import SYSTEM, ImageRowParams
from flowsight.training import schedule


def train(
    row: str,
    *,
    raw: Path,
    pairs: Path,
    split: str,
    stage: str,
    out: Path,
    history: Path,
    init: Path | None = None,
) -> None:
    """Train a row and write its checkpoint and history.

    Args:
        row: its name.
        raw, pairs, split: see `image_pairs.load_pairs`.
        stage: its name in `dvc.yaml`; all that goes into it is the key of the scratch folder.
        out: folder for `model.pt`.
        history: CSV, a line an epoch.
        init: folder of the checkpoint that is slimmed and goes on.
    """
    params = config.load()
    block = params.system(SYSTEM)
    row_params = block.row(row)
    stage_hash = dvc_yaml.stage_key(stage)
    with _tracked(out.name, row, row_params, params, split, stage, stage_hash) as log:
        # after the tracker has started: both take seconds to load, each on its own core
        from flowsight.classifiers import networks
        from flowsight.nn import checkpoint
        from flowsight.systems.saliency import training
        from flowsight.training import resume

        key = f"{stage}/{stage_hash}"
        state, epochs = training.fit(
            row_name=row,
            block=block,
            raw=raw,
            pairs=pairs,
            split_id=split,
            seed=params.seed,
            threads=params.threads,
            scratch_key=key,
            log=log,
            init=init,
            pretrained=(
                networks.named_weights(row_params.start.weights, row_params.network.backbone)
                if init is None
                else None
            ),
        )
        with files.atomic_dir(out) as folder:
            checkpoint.save(state, folder / "model.pt")
        schedule.write_history(epochs, history)
        resume.discard(key)


def _tracked(
    name: str,
    row: str,
    row_params: ImageRowParams,
    params: Params,
    split: str,
    stage: str,
    stage_hash: str,
) -> AbstractContextManager[tracking.Log]:
    tags = {
        "dataset": params.images.name,
        "recipe": params.recipe,
        "row": row,
        "split": split,
        "system": SYSTEM,
        "stage": stage,
        "stage_hash": stage_hash,
        "bit_reproducible": str(schedule.is_bit_reproducible(row_params.train)),
        "micro_batch": str(schedule.micro_batch(row_params.train)),
    }
    everything = asdict(row_params) | {"seed": params.seed, "threads": params.threads}
    return tracking.run(name, params=everything, tags=tags)
