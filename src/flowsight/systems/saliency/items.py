"""Images and masks, looked at and divided: the pairs that networks are trained and tested on."""

from __future__ import annotations

from pathlib import Path

from flowsight.contract import Folders
from flowsight.datasets.images import pairs
from flowsight.params.config import Params


def items(params: Params, folders: Folders, out: Path) -> None:
    """Write items, status and splits; see `datasets.images.pairs.write_pairs`.

    Args:
        params: `images` and `seed` are read.
        folders: `raw`, the data set.
        out: folder to replace.

    Raises:
        InputError, GateError: as `write_pairs`.
    """
    images = params.images
    pairs.write_pairs(
        folders["raw"],
        out,
        split_ids=images.split_ids,
        test_share=images.test_share,
        val_share=images.val_share,
        seed=params.seed,
        max_quarantined=images.max_quarantined,
    )
