"""Maps that cannot help: another clip's, of another class."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowsight.batches import map_controls
from flowsight.batches.clips import Clip, load_clips, read_images
from flowsight.batches.params import InputParams
from flowsight.errors import InputError
from flowsight.video import pack

RGB = InputParams(
    modality="rgb",
    stack_length=1,
    num_segments=1,
    resize_px=30,
    crop_px=24,
    scales=(1.0,),
    flip=False,
    map_value=0.1,
)


def made(labels: list[int], subset: str = "train") -> list[Clip]:
    """Clips of these classes, each with a map file of its own name and a length of its own."""
    return [
        Clip(f"{subset}/{i:02}", label, subset, 5 + i, Path("x"), Path(f"{subset}/{i:02}.zip"))
        for i, label in enumerate(labels)
    ]


@given(st.lists(st.integers(0, 4), min_size=2, max_size=40))
def test_every_map_goes_once_to_a_clip_of_another_class(labels: list[int]) -> None:
    clips = made(labels)
    if 2 * max(Counter(labels).values()) > len(labels):
        with pytest.raises(InputError, match="more than half of the train clips"):
            map_controls.shuffle(clips)
        return
    shuffled = map_controls.shuffle(clips)
    owner = {clip.maps: clip for clip in clips}
    assert [replace(c, maps=None, map_frames=None) for c in shuffled] == [
        replace(c, maps=None) for c in clips
    ], "nothing else changes"
    assert Counter(clip.maps for clip in shuffled) == Counter(owner.keys())
    for clip in shuffled:
        lender = owner[clip.maps]
        assert lender.label != clip.label
        assert clip.map_frames == lender.num_frames


def test_maps_stay_in_their_subset_and_the_order_does_not_matter() -> None:
    clips = made([0, 0, 1, 1, 2]) + made([0, 1], "test")
    shuffled = map_controls.shuffle(clips)
    assert all(str(clip.maps).startswith(clip.subset) for clip in shuffled)
    assert map_controls.shuffle(clips[::-1]) == shuffled[::-1]
    assert map_controls.shuffle(clips[:5]) == shuffled[:5], "another subset has no say"


def test_controls_of_a_split(toy: Any, tmp_path: Path) -> None:
    split = tmp_path / "1.csv"
    lines = (f"{clip_id},{'train' if i < 10 else 'test'}" for i, clip_id in enumerate(toy.clip_ids))
    split.write_text("\n".join(["clip_id,subset", *lines]) + "\n")
    where = toy.manifest, split, toy.frames
    own, _ = load_clips(*where, toy.maps)
    shuffled, _ = load_clips(*where, toy.maps, map_control="shuffled")
    constant, _ = load_clips(*where, toy.maps, map_control="constant")
    assert {clip.maps for clip in shuffled} == {clip.maps for clip in own}
    assert all(a.maps != b.maps for a, b in zip(own, shuffled, strict=True))
    assert constant == load_clips(*where)[0]


def test_another_clips_map_is_read_at_the_same_share_of_its_length(
    toy: Any, tmp_path: Path
) -> None:
    clip = load_clips(toy.manifest, toy.split, toy.frames, toy.maps)[0][0]
    maps = np.arange(21, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(5, 2) * 10
    pack.write_maps(tmp_path / "other.zip", maps, {})
    lent = replace(clip, maps=tmp_path / "other.zip", map_frames=21)
    assert clip.num_frames == 7
    seen = read_images(lent, RGB, np.array([0, 3, 6]))[:, 3, 0, 0]
    assert seen.tolist() == [0, 90, 180], "frames 0, 9 and 18 of 21"
