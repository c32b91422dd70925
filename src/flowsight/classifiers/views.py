"""A video in memory as the pipeline's clip, and what of it the views of a row look at."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import cast

import numpy as np

from flowsight.batches.clips import UNKNOWN, Clip, timeline
from flowsight.batches.sampling import stack_indices
from flowsight.classifiers import scores
from flowsight.classifiers.params import RowParams
from flowsight.classifiers.params import TestParams as Views
from flowsight.errors import InputError
from flowsight.serving import memory
from flowsight.serving.memory import ClipInMemory
from flowsight.serving.result import Bytes


def with_views(row: RowParams, num_views: int | None, num_crops: int | None) -> RowParams:
    """The row with other views at test time, where they are given.

    Raises:
        InputError: views that cannot be drawn.
    """
    try:
        views = Views(
            num_views=num_views or row.test.num_views, num_crops=num_crops or row.test.num_crops
        )
    except ValueError as error:
        raise InputError(f"expected views that can be drawn, got: {error}") from None
    return dataclasses.replace(row, test=views)


def positions(num_frames: int, row: RowParams, fps: float | None = None) -> list[int]:
    """Where the row's views start: frames, flow fields or places of its timeline, each once."""
    found, _ = scores.view_positions(_bare(num_frames, fps), row.input, row.test.num_views)
    return [int(position) for position in found]


def items(num_frames: int, row: RowParams, fps: float) -> set[int]:
    """Frames or flow fields that the row's views look at, of stacks or of clips at the row's rate.

    Args:
        num_frames: of the video; at least 2 for flow.
        row: its input and views.
        fps: of the video.
    """
    starts = np.array(positions(num_frames, row, fps))
    if row.input.clip_length is None:
        count = num_frames - (row.input.modality == "flow")
        found = stack_indices(starts, row.input.stack_length, count)
    else:
        times = timeline(_bare(num_frames, fps), row.input)
        found = times[stack_indices(starts, row.input.clip_length, len(times))]
    return {int(item) for item in found.ravel()}


def _bare(num_frames: int, fps: float | None) -> Clip:
    return Clip("video", UNKNOWN, "test", num_frames, Path(), None, fps=fps)


def clip(loaded: ClipInMemory, row: RowParams, maps: Bytes | None = None) -> Clip:
    """The clip as `batches.clips` reads it; its class is unknown."""
    stored = loaded.frames if row.input.modality == "rgb" else loaded.flow
    # zipfile takes an open file wherever it takes a path
    return Clip(
        clip_id="video",
        label=UNKNOWN,
        subset="test",
        num_frames=loaded.num_frames,
        pack=cast(Path, stored),
        maps=None if maps is None else cast(Path, memory.maps_pack(maps)),
        fps=loaded.fps,
    )
