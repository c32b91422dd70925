"""What the stage `alternate` does: parameters in, two tracked trainings, results of both out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flowsight.params import config
from flowsight.pipeline import dvc_yaml
from flowsight.training.job import tracked


def alternate(
    first: str,
    second: str,
    *,
    manifest: Path,
    split: Path,
    packs: Sequence[Path],
    stage: str,
    checkpoints: Path,
    attention: Path,
    history: Path,
) -> None:
    """Train two rows of `params.yaml` in turn (`alternation`) and write what stages read of them.

    Args:
        first: key of `rows`, trains first in each round.
        second: key of `rows`.
        manifest, split: see `batches.clips.load_clips`.
        packs: those of the first and of the second.
        stage: its name in `dvc.yaml`; all that goes into it is the key of the scratch folder.
        checkpoints: folder for `<row>-<split>/model.pt` and `attention-<row>-<split>/model.pt`.
        attention: folder for `<row>-<split>/<clip_id>.zip`.
        history: folder for `<row>-<split>.csv`.
    """
    params = config.load()
    stage_hash = dvc_yaml.stage_key(stage)
    keys = [f"{row}-{split.stem}" for row in (first, second)]
    with (
        tracked(keys[0], first, params, split, stage, stage_hash) as first_log,
        tracked(keys[1], second, params, split, stage, stage_hash) as second_log,
    ):
        from flowsight.systems.two_stream import alternation

        partners = [
            alternation.Partner(
                name=row,
                row=params.row(row),
                packs=folder,
                checkpoint=checkpoints / key,
                history=history / f"{key}.csv",
                maps=attention / key,
                attention_network=checkpoints / f"attention-{key}",
                log=log,
            )
            for row, key, folder, log in zip(
                (first, second), keys, packs, (first_log, second_log), strict=True
            )
        ]
        alternation.alternate(
            *partners,
            params=params,
            manifest=manifest,
            split=split,
            scratch_key=f"{stage}/{stage_hash}",
        )
