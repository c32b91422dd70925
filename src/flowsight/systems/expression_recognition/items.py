"""The pictures, looked at and divided: what the stage `items` does."""

from __future__ import annotations

from pathlib import Path

from flowsight.datasets.images import labelled
from flowsight.systems.expression_recognition.params import Data


def items(data: Data, raw: Path, out: Path, *, seed: int) -> None:
    """Write `data/items/<name>`; see `labelled.write_labelled`.

    Args:
        data: of the block.
        raw: the data set.
        out: folder to replace.
        seed: of the parameters.

    Raises:
        InputError, GateError: as `write_labelled`.
    """
    labelled.write_labelled(
        raw,
        out,
        split_ids=data.split_ids,
        val_share=data.val_share,
        seed=seed,
        max_quarantined=data.max_quarantined,
        side_px=data.side_px,
    )
