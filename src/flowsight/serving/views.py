"""Which frames and flow fields of a video the networks look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np

from flowsight import inference
from flowsight.attention.extraction import UNKNOWN
from flowsight.datasets.clips import Clip
from flowsight.datasets.sampling import stack_indices
from flowsight.errors import InputError
from flowsight.rows import RowParams
from flowsight.rows import TestParams as Views
from flowsight.serving import memory
from flowsight.serving.bundle import STREAMS, Bundle
from flowsight.serving.memory import ClipInMemory
from flowsight.serving.result import Bytes


def rows(bundle: Bundle, num_views: int | None, num_crops: int | None) -> dict[str, RowParams]:
    """The phase-2 rows, with other views where they are given."""
    return {
        name: _with_views(stream.row, num_views, num_crops)
        for name, stream in bundle.streams.items()
    }


def _with_views(row: RowParams, num_views: int | None, num_crops: int | None) -> RowParams:
    try:
        views = Views(
            num_views=num_views or row.test.num_views, num_crops=num_crops or row.test.num_crops
        )
    except ValueError as error:
        raise InputError(f"expected views that can be drawn, got: {error}") from None
    return dataclasses.replace(row, test=views)


def needed_fields(bundle: Bundle, rows: Mapping[str, RowParams], num_frames: int) -> set[int]:
    """Flow fields that the views look at: scored stacks, and those that give attention.

    Args:
        bundle: a loaded system.
        rows: phase-2 row of `spatial` and `temporal`.
        num_frames: of the video, at least 2.
    """
    scored = rows["temporal"]
    explained = bundle.streams["temporal"].phase1_row
    looked_at = [
        (positions(num_frames, scored), scored.input.stack_length),
        (positions(num_frames, rows["spatial"]), explained.input.stack_length),
    ]
    return {
        int(field)
        for positions, length in looked_at
        for field in stack_indices(np.array(positions), length, num_frames - 1).ravel()
    }


def positions(num_frames: int, row: RowParams) -> list[int]:
    """Where the row's views start: frames (RGB) or flow fields, each once."""
    clip = Clip("video", UNKNOWN, "test", num_frames, Path(), None)
    positions, _ = inference.view_positions(clip, row.input, row.test.num_views)
    return [int(position) for position in positions]


def clip(loaded: ClipInMemory, row: RowParams, maps: Bytes | None = None) -> Clip:
    """The clip as `datasets.clips` reads it; its class is unknown."""
    stored = loaded.frames if row.input.modality == "rgb" else loaded.flow
    # zipfile takes an open file wherever it takes a path
    return Clip(
        clip_id="video",
        label=UNKNOWN,
        subset="test",
        num_frames=loaded.num_frames,
        pack=cast(Path, stored),
        maps=None if maps is None else cast(Path, memory.maps_pack(maps)),
    )


def other(stream: str) -> str:
    return STREAMS[1 - STREAMS.index(stream)]
