"""From a video file to class scores: the pipeline's own path, in memory.

Frames and flow pass through the packs' size, JPEG and quantisation; the phase-1 networks, fed with
the constant map, give features; the attention networks make maps of them without a class; each
phase-2 network sees the other stream's maps; the probabilities are fused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from flowsight import inference, seeding
from flowsight.attention import extraction
from flowsight.attention.extraction import Stream
from flowsight.datasets.clips import full_frames
from flowsight.errors import FlowsightError, as_flowsight_error
from flowsight.metrics import classification
from flowsight.metrics.fusion import fuse
from flowsight.rows import RowParams
from flowsight.serving import memory, views
from flowsight.serving.bundle import STREAMS, Bundle, ServedStream
from flowsight.serving.memory import NO_LIMITS, ClipInMemory, Limits
from flowsight.serving.result import Bytes, Prediction

Result = TypeVar("Result")

FRAMES_AT_ONCE = 32
"""Whole frames that go through a phase-1 network at once, as in the attention stage."""

Update = Callable[[str, int, int], None]
"""Called with what is being done, and how many frames of how many (0: unknown)."""


def _silent(part: str, done: int, total: int) -> None:
    """No progress."""


def predict_video(
    bundle: Bundle,
    video: Path | str,
    *,
    num_views: int | None = None,
    num_crops: int | None = None,
    threads: int | None = None,
    attention: bool = False,
    limits: Limits = NO_LIMITS,
    update: Update = _silent,
) -> Prediction:
    """Score one video.

    Args:
        bundle: a loaded system.
        video: any format OpenCV reads.
        num_views: frames or stacks, evenly drawn; None: as the pipeline tests.
        num_crops: 10 or 1; None: as the pipeline tests.
        threads: CPU threads of torch; None: the pipeline's, so that scores are equal to its.
        attention: also the attention maps of every frame, and the frames.
        limits: what is refused.
        update: progress.

    Raises:
        UnreadableVideo: not a video, or beyond the limits.
        InputError: views that are not possible, or scores that are not finite.
        ResourceError: the GPU's memory does not hold the work.
    """
    rows = views.rows(bundle, num_views, num_crops)
    clip = _load(bundle, Path(video), limits, None if attention else rows, update)
    return predict_clip(
        bundle,
        clip,
        video=str(video),
        num_views=num_views,
        num_crops=num_crops,
        threads=threads,
        attention=attention,
        update=update,
    )


def predict_videos(
    bundle: Bundle,
    videos: Sequence[Path | str],
    *,
    attention: bool | Sequence[bool] = False,
    limits: Limits = NO_LIMITS,
    **options: Any,
) -> Iterator[Prediction | FlowsightError]:
    """Score videos, in their order; the next one is decoded while one goes through the networks.

    Args:
        bundle: a loaded system.
        videos: files.
        attention: for all, or for each; see `predict_video`.
        limits: what is refused.
        options: `num_views`, `num_crops` and `threads` of `predict_video`.

    Yields:
        A prediction, or what was wrong with that video; the others go on.
    """
    wanted = [attention] * len(videos) if isinstance(attention, bool) else list(attention)
    rows = views.rows(bundle, options.get("num_views"), options.get("num_crops"))

    def read(index: int) -> ClipInMemory | FlowsightError:
        views = None if wanted[index] else rows
        return _caught(lambda: _load(bundle, Path(videos[index]), limits, views, _silent))

    with ThreadPoolExecutor(max_workers=1) as reader:
        waiting = [reader.submit(read, 0)] if videos else []
        for index, video in enumerate(videos):
            clip = waiting.pop().result()
            if index + 1 < len(videos):
                waiting.append(reader.submit(read, index + 1))
            if isinstance(clip, FlowsightError):
                yield clip
            else:
                score = partial(predict_clip, bundle, clip, video=str(video), **options)
                yield _caught(partial(score, attention=wanted[index]))


def _caught(work: Callable[[], Result]) -> Result | FlowsightError:
    """What the work returns, or the plain meaning of what it raises; bugs come out."""
    try:
        return work()
    except Exception as error:
        known = as_flowsight_error(error)
        if known is None:
            raise
        return known


def _load(
    bundle: Bundle,
    video: Path,
    limits: Limits,
    rows: Mapping[str, RowParams] | None,
    update: Update,
) -> ClipInMemory:
    """A video in memory, with the flow that these rows' views need; None: with all of it."""
    return memory.load(
        video,
        frames=bundle.frames,
        flow=bundle.flow,
        fields=None if rows is None else partial(views.needed_fields, bundle, rows),
        limits=limits,
        update=lambda done, total: update("flow", done, total),
    )


def predict_clip(
    bundle: Bundle,
    loaded: ClipInMemory,
    *,
    video: str = "",
    num_views: int | None = None,
    num_crops: int | None = None,
    threads: int | None = None,
    attention: bool = False,
    update: Update = _silent,
) -> Prediction:
    """Score a video that is in memory already, by `memory.load` with the bundle's settings.

    Args:
        bundle: a loaded system.
        loaded: the video's frames and all its flow.
        video: its name, for the prediction.
        num_views, num_crops, threads, attention, update: as for `predict_video`.

    Raises:
        InputError, ResourceError: as `predict_video`.
    """
    rows = views.rows(bundle, num_views, num_crops)
    seconds = dict(loaded.seconds)
    with seeding.reproducible(threads or bundle.threads):
        with _timed(seconds, "attention"):
            maps = _attention(bundle, loaded, None if attention else rows, update)
        with _timed(seconds, "scores"):
            logits = _logits(bundle, loaded, rows, maps)
    probs = {name: classification.softmax(values) for name, values in logits.items()}
    probs["fused"] = fuse(probs["spatial"], probs["temporal"], bundle.weight)
    return Prediction(
        video=video,
        classes=bundle.classes,
        probs=probs,
        logits=logits,
        num_frames=loaded.num_frames,
        duration_sec=loaded.duration_sec,
        seconds={**seconds, "total": sum(seconds.values())},
        attention=maps if attention else None,
        clip=loaded if attention else None,
    )


def _attention(
    bundle: Bundle, loaded: ClipInMemory, rows: Mapping[str, RowParams] | None, update: Update
) -> dict[str, Bytes]:
    """Maps of both streams: of the frames that these rows' views look at; None: of all."""

    def wanted(stream: str) -> Sequence[int]:
        if rows is None:
            return range(loaded.num_frames)
        return views.positions(loaded.num_frames, rows[views.other(stream)])

    return {name: _maps(bundle.streams[name], loaded, wanted(name), update) for name in STREAMS}


def _logits(
    bundle: Bundle, loaded: ClipInMemory, rows: Mapping[str, RowParams], maps: Mapping[str, Bytes]
) -> dict[str, npt.NDArray[np.float32]]:
    """(K,) of each stream, which sees the other one's maps."""
    found = {}
    for name in STREAMS:
        clip = views.clip(loaded, rows[name], maps[views.other(name)])
        found[name] = inference.clip_logits(bundle.streams[name].phase2, clip, rows[name]).numpy()
    return found


def _maps(
    served: ServedStream, loaded: ClipInMemory, indices: Sequence[int], update: Update
) -> Bytes:
    """(T, h, w) maps of a stream; zero where not asked for."""
    row, clip = served.phase1_row, views.clip(loaded, served.row)
    stream = Stream(served.phase1, row.network.target_layers, row.input, row.network.map_channel)
    parts: list[Bytes] = []
    for start in range(0, len(indices), FRAMES_AT_ONCE):
        piece = list(indices[start : start + FRAMES_AT_ONCE])
        x = full_frames(clip, row.input, piece, map_channel=row.network.map_channel)
        found = extraction.predict(stream, served.attention, x.to(stream.device))
        parts.append(extraction.quantise(found))
        update(f"{row.input.modality} attention", start + len(piece), len(indices))
    maps = np.concatenate(parts)
    every = np.zeros((clip.num_frames, *maps.shape[1:]), np.uint8)
    every[np.asarray(indices)] = maps
    return every


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start
