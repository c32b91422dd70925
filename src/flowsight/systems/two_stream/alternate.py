"""What the stage `alternate` does: parameters in, two tracked trainings, results of both out."""

from __future__ import annotations

from dataclasses import replace

from flowsight.contract import Job
from flowsight.training.job import tracked


def alternate(job: Job) -> None:
    """Train a row and the one whose maps it sees in turn (`alternation`); write both's results.

    Args:
        job: of the row that trains first in each round. Folders `manifest`, `split_file`, `packs`
            and `other_packs` (`batches.clips.load_clips`) are read. Written are for both rows, by
            `<row>-<split>`: `out`'s folder, `model.pt` and `attention-<row>-<split>/model.pt`;
            folder `attention`, `<clip_id>.zip`; folder `history`, a CSV.

    Raises:
        InputError: fewer epochs than rounds; what training and extraction refuse.
    """
    folders = job.folders
    second = job.row.start.maps
    other = replace(job, row_name=second, out=job.out.parent / f"{second}-{job.split}")
    with tracked(job) as first_log, tracked(other) as second_log:
        from flowsight.systems.two_stream import alternation

        partners = [
            alternation.Partner(
                name=one.row_name,
                row=one.row,
                packs=folders[packs],
                checkpoint=one.out,
                history=folders["history"] / f"{one.out.name}.csv",
                maps=folders["attention"] / one.out.name,
                attention_network=one.out.parent / f"attention-{one.out.name}",
                log=log,
            )
            for one, packs, log in (
                (job, "packs", first_log),
                (other, "other_packs", second_log),
            )
        ]
        alternation.alternate(
            *partners,
            params=job.params,
            manifest=folders["manifest"],
            split=folders["split_file"],
            scratch_key=job.scratch_key,
        )
