"""Official splits, with validation cut from training groups.

Which groups become validation hangs on the seed, the split and the groups' names, so a clip that
is added moves as few others as can be.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flowsight import files
from flowsight.datasets import tables
from flowsight.datasets.grouping import choose_groups
from flowsight.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def write_splits(
    manifest_dir: Path,
    status_csv: Path,
    out: Path,
    *,
    ids: Sequence[str],
    val_share: float,
    seed: int,
    max_absent: float = 0.0,
) -> None:
    """Write `<split_id>.csv` (clip_id, subset train | val | test) for every split id.

    Args:
        manifest_dir: folder of `clips.csv`, `classes.csv` and `official_splits.csv`.
        status_csv: status of every clip after frames and flow; only ok ones are used.
        out: folder to make.
        ids: split ids to write.
        val_share: share of the training clips, by whole groups, in [0, 1).
        seed: decides which groups.
        max_absent: share of classes that may have no training clip; they leave the split.

    Raises:
        InputError: an unknown split id, or a split without training or test clips.
    """
    clips = tables.read(manifest_dir / "clips.csv", ["clip_id", "label", "group"])
    classes = tables.read(manifest_dir / "classes.csv", tables.CLASSES).label.tolist()
    official = tables.read(manifest_dir / "official_splits.csv", tables.OFFICIAL)
    status = tables.read(status_csv, ["clip_id", "status"])
    known = official.split_id.unique().tolist()
    for split_id in ids:
        if split_id not in known:
            raise InputError(
                f"expected splits.ids among {', '.join(known)} in {manifest_dir}, got {split_id!r}"
            )
    ok = clips[clips.clip_id.isin(status.clip_id[status.status == "ok"])]
    with files.atomic_dir(out) as folder:
        for split_id in ids:
            rows = ok.merge(official[official.split_id == split_id], on="clip_id")
            rows = _drop_untrained(rows, classes, split_id, max_absent)
            table = cut_validation(rows, val_share=val_share, key=f"{seed}/{split_id}")
            files.write_csv(table[tables.SPLIT], folder / f"{split_id}.csv")


def _drop_untrained(
    rows: pd.DataFrame, classes: Sequence[str], split_id: str, max_absent: float
) -> pd.DataFrame:
    """Leave out classes that cannot be learnt, or refuse."""
    trained = set(rows.label[rows.subset == "train"])
    without = [label for label in classes if label not in trained]
    kept = rows[rows.label.isin(trained)]
    if len(without) > max_absent * len(classes) or not trained:
        raise InputError(
            f"expected a training clip of every class in split {split_id}, found none for "
            f"{len(without)} of {len(classes)} ({', '.join(without[:3])}"
            f"{', ...' if len(without) > 3 else ''}); add clips or raise dataset.max_absent"
        )
    if without:
        lost = len(rows) - len(kept)
        print(
            f"warning: split {split_id} has no training clip of {', '.join(without)}; "
            f"{lost} test clips of these classes left out",
            file=sys.stderr,
        )
    if not (kept.subset == "test").any():
        raise InputError(
            f"expected test clips of the trained classes in split {split_id}, found none; "
            "add clips or choose another of splits.ids"
        )
    return kept


def cut_validation(rows: pd.DataFrame, *, val_share: float, key: str) -> pd.DataFrame:
    """Turn whole training groups into validation.

    Args:
        rows: clip_id, label, group, subset (train | test).
        val_share: wanted share of each class's training clips.
        key: decides the order in which groups are taken.

    Returns:
        The rows with subset train | val | test, sorted by clip_id.
    """
    train = rows[rows.subset == "train"]
    chosen = choose_groups(train.label.tolist(), train.group.tolist(), share=val_share, key=key)
    becomes_val = (rows.subset == "train") & rows.group.isin(chosen)
    return rows.assign(subset=rows.subset.mask(becomes_val, "val")).sort_values("clip_id")
