"""Maps of a phase-1 network: for the other stream, or by a row that explains it in another way."""

from __future__ import annotations

from flowsight.contract import Job
from flowsight.systems.two_stream.maps import extraction, learnt
from flowsight.systems.two_stream.maps.key_frames import EVERY_FRAME, KeyFrames


def explain(job: Job) -> None:
    """Write the maps of every clip of a split, and the attention network that made some of them.

    A row that explains none is explained itself; one with `start.explains` draws other maps of the
    row named there (of other layers, or of key frames), or learns them through the other stream's
    classification loss (`explains.through`).

    Args:
        job: folders `manifest`, `split_file`, `packs` (`batches.clips.load_clips`) and
            `checkpoint`, the network's, are read; for key frames also `flow`, of flow packs, along
            which maps are carried; `through_packs` and `through_checkpoint`, the other stream's.
            `out` (maps) and folder `network` (attention network) are replaced.

    Raises:
        InputError: what extraction refuses.
    """
    explains, folders = job.row.start.explains, job.folders
    common = {
        "name": job.row_name,
        "row": job.row,
        "attention": job.block.attention,
        "manifest": folders["manifest"],
        "split": folders["split_file"],
        "packs": folders["packs"],
        "checkpoint": folders["checkpoint"],
        "out": job.out,
        "network_out": folders["network"],
        "seed": job.params.seed,
        "threads": job.params.threads,
    }
    if explains is None or explains.through is None:
        keys = EVERY_FRAME
        if explains is not None:
            keys = KeyFrames(every=explains.key_every, packs=folders["packs"], flow=folders["flow"])
        extraction.extract(**common, keys=keys)
        return
    learnt.extract_learnt(
        **common,
        through=job.block.rows[explains.through],
        area_weight=explains.area_weight,
        through_packs=folders["through_packs"],
        through_checkpoint=folders["through_checkpoint"],
    )
