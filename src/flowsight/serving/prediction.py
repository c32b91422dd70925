"""From a video file to class scores: the pipeline's own path, in memory.

Frames and flow pass through the packs' size, JPEG and quantisation; the phase-1 networks, fed with
the constant map, give features; the attention networks make maps of them without a class; each
phase-2 network sees the other stream's maps; the probabilities are fused.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from flowsight import inference, seeding
from flowsight.attention import extraction
from flowsight.attention.extraction import UNKNOWN, Stream
from flowsight.datasets.clips import Clip, full_frames
from flowsight.datasets.sampling import stack_indices
from flowsight.errors import FlowsightError, InputError, as_flowsight_error
from flowsight.metrics import classification
from flowsight.metrics.fusion import fuse
from flowsight.rows import RowParams
from flowsight.rows import TestParams as Views
from flowsight.serving import memory
from flowsight.serving.bundle import STREAMS, Bundle, ServedStream
from flowsight.serving.memory import NO_LIMITS, ClipInMemory, Limits

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]
Result = TypeVar("Result")

FRAMES_AT_ONCE = 32
"""Whole frames that go through a phase-1 network at once, as in the attention stage."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """What a system says of a video. K classes, T frames."""

    video: str
    classes: tuple[str, ...]
    probs: dict[str, Floats]
    """`spatial`, `temporal`, `fused` -> (K,), sums to 1."""
    logits: dict[str, npt.NDArray[np.float32]]
    """`spatial`, `temporal` -> (K,)."""
    num_frames: int
    duration_sec: float
    seconds: dict[str, float]
    """Time spent on decode, jpeg, flow, attention, scores, and in all (`total`)."""
    attention: dict[str, Bytes] | None = None
    """`spatial`, `temporal` -> (T, h, w) maps that the stream's phase-1 network gave."""
    clip: ClipInMemory | None = None
    """The frames, where maps were asked for."""

    @property
    def label(self) -> str:
        """Best class; among equals the first."""
        return self.top(1)[0][0]

    def top(self, count: int, stream: str = "fused") -> list[tuple[str, float]]:
        """The best classes and their probabilities, best first."""
        best = np.argsort(-self.probs[stream], kind="stable")[:count]
        return [(self.classes[k], float(self.probs[stream][k])) for k in best]


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
    rows = _rows(bundle, num_views, num_crops)
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
    rows = _rows(bundle, options.get("num_views"), options.get("num_crops"))

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
        fields=None if rows is None else partial(needed_fields, bundle, rows),
        limits=limits,
        update=lambda done, total: update("flow", done, total),
    )


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
        (_positions(num_frames, scored), scored.input.stack_length),
        (_positions(num_frames, rows["spatial"]), explained.input.stack_length),
    ]
    return {
        int(field)
        for positions, length in looked_at
        for field in stack_indices(np.array(positions), length, num_frames - 1).ravel()
    }


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
    rows = _rows(bundle, num_views, num_crops)
    seconds = dict(loaded.seconds)
    with seeding.reproducible(threads or bundle.threads):
        with _timed(seconds, "attention"):
            maps = {
                name: _maps(
                    bundle.streams[name],
                    _clip(loaded, bundle.streams[name].row),
                    range(loaded.num_frames)
                    if attention
                    else _positions(loaded.num_frames, rows[_other(name)]),
                    update,
                )
                for name in STREAMS
            }
        with _timed(seconds, "scores"):
            logits = {
                name: inference.clip_logits(
                    bundle.streams[name].phase2,
                    _clip(loaded, rows[name], maps[_other(name)]),
                    rows[name],
                ).numpy()
                for name in STREAMS
            }
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


def _rows(bundle: Bundle, num_views: int | None, num_crops: int | None) -> dict[str, RowParams]:
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


def _other(stream: str) -> str:
    return STREAMS[1 - STREAMS.index(stream)]


def _clip(loaded: ClipInMemory, row: RowParams, maps: Bytes | None = None) -> Clip:
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


def _positions(num_frames: int, row: RowParams) -> list[int]:
    """Where the row's views start: frames (RGB) or flow fields, each once."""
    clip = Clip("video", UNKNOWN, "test", num_frames, Path(), None)
    positions, _ = inference.view_positions(clip, row.input, row.test.num_views)
    return [int(position) for position in positions]


def _maps(served: ServedStream, clip: Clip, indices: Sequence[int], update: Update) -> Bytes:
    """(T, h, w) maps of a stream; zero where not asked for."""
    row = served.phase1_row
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


def as_record(prediction: Prediction, count: int) -> Mapping[str, Any]:
    """Plain values: the best classes, all probabilities of every stream, and times."""
    best = prediction.top(count)
    return {
        "video": prediction.video,
        "label": prediction.label,
        "classes": [name for name, _ in best],
        "scores": [score for _, score in best],
        "probabilities": {
            stream: dict(zip(prediction.classes, values.tolist(), strict=True))
            for stream, values in prediction.probs.items()
        },
        "num_frames": prediction.num_frames,
        "duration_sec": round(prediction.duration_sec, 6),
        "seconds": {part: round(sec, 4) for part, sec in prediction.seconds.items()},
    }
