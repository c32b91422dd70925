"""Controls of an attention experiment: maps that cannot help, given to the network all the same."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowsight.errors import InputError

if TYPE_CHECKING:
    from flowsight.batches.clips import Clip


def shuffle(clips: Sequence[Clip]) -> list[Clip]:
    """Give each clip the maps of a clip of another class in the same subset.

    All maps are used, each once. Which goes where depends on the clips' names and nothing else. The
    classes of test clips are looked at to choose (no network sees them).

    Raises:
        InputError: more than half of a subset's clips are of one class.
    """
    lent: dict[str, Clip] = {}
    for subset in sorted({clip.subset for clip in clips}):
        members = sorted(
            (clip for clip in clips if clip.subset == subset),
            key=lambda clip: (clip.label, hashlib.sha256(clip.clip_id.encode()).digest()),
        )
        # sorted by class, a step as wide as the largest class leads out of every class
        step = max(Counter(clip.label for clip in members).values())
        if 2 * step > len(members):
            raise InputError(
                f"expected no class with more than half of the {subset} clips, got {step} of "
                f"{len(members)}; maps cannot be shuffled between classes there: leave "
                "map_control out"
            )
        for index, clip in enumerate(members):
            lent[clip.clip_id] = members[(index + step) % len(members)]
    return [
        dataclasses.replace(
            clip, maps=lent[clip.clip_id].maps, map_frames=lent[clip.clip_id].num_frames
        )
        for clip in clips
    ]
