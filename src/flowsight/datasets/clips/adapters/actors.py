"""UCF-101's layout with `gXX` the same actor in every class, as the generated sample has it.

Groups are not tied to a class here, so an actor kept for validation is kept in all classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flowsight.datasets.clips.adapters import ucf101

if TYPE_CHECKING:
    import pandas as pd


def classes(raw: Path) -> list[str]:
    """As `ucf101.classes`."""
    return ucf101.classes(raw)


def find_clips(raw: Path) -> pd.DataFrame:
    """As `ucf101.find_clips`, with group `gXX`."""
    found = ucf101.find_clips(raw)
    found["group"] = found.clip_id.map(ucf101.group_number)
    return found


def official_splits(raw: Path, clips: pd.DataFrame) -> pd.DataFrame:
    """As `ucf101.official_splits`."""
    return ucf101.official_splits(raw, clips)
