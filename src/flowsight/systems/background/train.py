"""What the train stage of background subtraction does: parameters in, checkpoint out."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from flowsight import files, tracking
from flowsight.datasets.scenes import videos as background
from flowsight.params import config
from flowsight.params.config import Params
from flowsight.pipeline import dvc_yaml
from flowsight.systems.background.params import SYSTEM


def train(row: str, split_id: str, *, scenes: Path, stage: str, out: Path, history: Path) -> None:
    """Train a row and write its checkpoint and history.

    Args:
        row: a row's name.
        split_id: key of `scenes.splits`.
        scenes: folder of the videos.
        stage: its name in `dvc.yaml`; all that goes into it is the key of the scratch folder.
        out: folder for `model.pt`.
        history: CSV, a line an epoch.
    """
    params = config.load()
    block = params.system(SYSTEM)
    videos = background.open_videos(scenes, params.scenes.trained_on(split_id))
    key = f"{stage}/{dvc_yaml.stage_key(stage)}"
    with _tracked(out.name, row, split_id, params, stage, key) as log:
        # after the tracker has started: both take seconds to load, each on its own core
        from flowsight.nn import checkpoint
        from flowsight.systems.background import training
        from flowsight.training import resume

        state, epochs = training.fit(
            row=block.row(row),
            row_name=row,
            videos=videos,
            seed=params.seed,
            threads=params.threads,
            scratch_key=key,
            log=log,
        )
        with files.atomic_dir(out) as folder:
            checkpoint.save(state, folder / "model.pt")
        training.write_history(epochs, history)
        resume.discard(key)


def _tracked(
    name: str, row: str, split_id: str, params: Params, stage: str, key: str
) -> AbstractContextManager[tracking.Log]:
    block = params.system(SYSTEM)
    tags = {
        "dataset": params.scenes.name,
        "recipe": params.recipe,
        "row": row,
        "split": split_id,
        "stage": stage,
        "stage_hash": key.rpartition("/")[2],
        "bit_reproducible": "True",
    }
    everything = asdict(block.row(row)) | {"seed": params.seed, "threads": params.threads}
    return tracking.run(name, params=everything, tags=tags)
