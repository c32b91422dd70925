"""Weizmann actions: `videos/<action>/<person>_<action>.avi`, leave one person out.

Gorelick, Blank, Shechtman, Irani, Basri 2007, "Actions as Space-Time Shapes". Ten actions by nine
persons. The data set has no lists: a split is named after the person who is the test set. In the
official archives some of lena's clips come in two (`lena_run1`, `lena_run2`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from flowsight.datasets.layout import FOUND_COLUMNS, class_folders, scan, split_table
from flowsight.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

STAND_IN = "background difference"
"""What `write_stand_in` makes in place of masks, which the data set does not come with."""
PERSONS = ("daria", "denis", "eli", "ido", "ira", "lena", "lyova", "moshe", "shahar")
ACTIONS = ("bend", "jack", "jump", "pjump", "run", "side", "skip", "walk", "wave1", "wave2")


def classes(raw: Path) -> list[str]:
    """The ten actions, sorted."""
    return list(ACTIONS)


def find_clips(raw: Path) -> pd.DataFrame:
    """The videos of `videos/<action>/`: clip_id, label, group (the person), path.

    Raises:
        InputError: an unknown action, an unknown person or a file in another action's folder.
    """
    found = scan(raw, class_folders(raw / "videos", ACTIONS))
    found["group"] = found.clip_id.map(_person)
    return found[FOUND_COLUMNS]


def _person(clip_id: str) -> str:
    label, name = clip_id.split("/")
    person = name.partition("_")[0]
    if person not in PERSONS or not re.fullmatch(rf"{person}_{label}\d?", name):
        raise InputError(
            f"expected <person>_{label}.avi in videos/{label} with a person of "
            f"{', '.join(PERSONS)}; got {name!r}: rename or remove it"
        )
    return person


def official_splits(raw: Path, clips: pd.DataFrame) -> pd.DataFrame:
    """One split for each person who has clips: that person is the test set.

    Args:
        raw: not needed.
        clips: what `find_clips` returned.
    """
    present = [person for person in PERSONS if (clips.group == person).any()]
    return split_table(
        (clip_id, person, "test" if group == person else "train")
        for person in present
        for clip_id, group in zip(clips.clip_id, clips.group, strict=True)
    )


def write_stand_in(video: Path, out: Path) -> None:
    """Write `masks`, (T, H, W) bool, of what moves before the resting camera; see `moving_regions`.

    Raises:
        UnreadableVideo: no frame decodes.
    """
    import numpy as np

    from flowsight.datasets.clips.moving_regions import moving_regions
    from flowsight.video.decode import decode
    from flowsight.video.formats import write_arrays

    write_arrays(out, {"masks": moving_regions(np.stack(list(decode(video))))})
