"""The pictures, looked at and divided."""

from __future__ import annotations

from pathlib import Path

from flowsight.contract import Folders
from flowsight.datasets.images import labelled
from flowsight.params.config import Params
from flowsight.systems.expression_recognition.params import SYSTEM


def items(params: Params, folders: Folders, out: Path) -> None:
    """Write items, classes, status and splits; see `labelled.write_labelled`.

    Args:
        params: the block's `data`, and `seed`.
        folders: `raw`, the data set.
        out: folder to replace.

    Raises:
        InputError, GateError: as `write_labelled`.
    """
    data = params.system(SYSTEM).data
    labelled.write_labelled(
        folders["raw"],
        out,
        split_ids=data.split_ids,
        val_share=data.val_share,
        seed=params.seed,
        max_quarantined=data.max_quarantined,
        side_px=data.side_px,
    )
