"""The tables between stages: columns, kinds, and reading them as they were written.

Everything is text unless named below: a class called `nan`, a group `01` or a split `1` must come
back as it went in, which pandas' guessing would spoil.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flowsight.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

CLIPS = [
    "clip_id",
    "label",
    "group",
    "path",
    "sha256",
    "width",
    "height",
    "fps",
    "num_frames",
    "num_frames_header",
    "shard",
]
STATUS = ["clip_id", "status", "reason"]
CLASSES = ["index", "label"]
OFFICIAL = ["clip_id", "split_id", "subset"]
SPLIT = ["clip_id", "subset"]
STATUSES = ("ok", "quarantined", "absent")
SUBSETS = ("train", "val", "test")

_KINDS = {
    "index": "int64",
    "width": "int64",
    "height": "int64",
    "fps": "float64",
    "num_frames": "int64",
    "num_frames_header": "int64",
    "shard": "int64",
}


def read(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a table and check that it has these columns.

    Args:
        path: CSV file with a header.
        columns: wanted columns; others are left out.

    Returns:
        The columns in this order; text, or the number the column's name stands for.

    Raises:
        InputError: no such file, not a table, a missing column or text where a number belongs.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"expected a table in {path}, found no such file") from None
    except (ValueError, pd.errors.ParserError) as error:
        raise InputError(f"expected a CSV table in {path}: {error}") from None
    missing = [name for name in columns if name not in table]
    if missing:
        raise InputError(f"expected columns {', '.join(columns)} in {path}, got {list(table)}")
    kinds = {name: _KINDS[name] for name in columns if name in _KINDS}
    try:
        return table[list(columns)].astype(kinds)
    except ValueError as error:
        raise InputError(f"expected numbers in {', '.join(kinds)} of {path}: {error}") from None
