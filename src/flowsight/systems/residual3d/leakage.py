"""Whether test clips have relatives among the training clips, looked at where accuracy is told."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from flowsight.errors import InputError
from flowsight.params.config import Params
from flowsight.systems.residual3d.params import SYSTEM

LITERATURE = (0.40, 0.50)
"""Top-1 accuracy of 3D networks trained from scratch on UCF-101's split 1, as widely reported."""
SURPRISE = 0.55


def check_groups(splits: Mapping[str, pd.DataFrame], groups: Mapping[str, str]) -> int:
    """Refuse to report where a group of clips stands on two sides of a split.

    Args:
        splits: split id -> table with clip_id and subset.
        groups: clip id -> group (the actor, or the long video that clips were cut from).

    Returns:
        How many groups were looked at, over all splits.

    Raises:
        InputError: naming a group and its sides.
    """
    count = 0
    for split_id, table in splits.items():
        sides: dict[str, set[str]] = {}
        for clip, subset in zip(table["clip_id"], table["subset"], strict=True):
            sides.setdefault(groups[clip], set()).add(subset)
        shared = sorted(group for group, found in sides.items() if len(found) > 1)
        if shared:
            name, where = shared[0], " and ".join(sorted(sides[shared[0]]))
            raise InputError(
                f"expected each group of clips on one side of split {split_id}, got "
                f"{len(shared)} on several, first {name} in {where}: accuracy on relatives of "
                "training clips means nothing; make the splits again"
            )
        count += len(sides)
    return count


def warnings(top1: Mapping[tuple[str, str], float], params: Params) -> list[str]:
    """What is too good to be believed without a second look.

    Args:
        top1: (row, split id) -> accuracy of videos.
        params: which data set, and which rows start from other weights.
    """
    if params.dataset.name != "ucf101":
        return []
    low, high = (round(100 * end) for end in LITERATURE)
    return [
        f"{row} reaches {100 * value:.1f} % on split 1 from scratch, the literature {low} to "
        f"{high} %: look for clips of one group on both sides"
        for (row, split_id), value in top1.items()
        if split_id == "1"
        and params.system(SYSTEM).rows[row].start.weights is None
        and value > SURPRISE
    ]
