"""From a video's or an image's file to what a system says of it, in memory.

It takes the pipeline's own path, which is the system's own (`contract`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from flowsight.errors import FlowsightError, as_flowsight_error
from flowsight.nn import seeding
from flowsight.serving.bundle import Bundle
from flowsight.serving.memory import NO_LIMITS, Limits
from flowsight.serving.result import Update

Made = TypeVar("Made")


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
) -> Any:
    """Score one video, or of a system that looks at images one image.

    Args:
        bundle: a loaded system.
        video: any format OpenCV reads; of an image a format of `serving.images`.
        num_views: frames, stacks or clips, evenly drawn; None: as the pipeline tests.
        num_crops: 10 or 1; None: as the pipeline tests.
        threads: CPU threads of torch; None: the pipeline's, so that scores are equal to its.
        attention: also the attention maps of every frame, and the frames; of other systems what
            their `REQUEST` asks for.
        limits: what is refused.
        update: progress.

    Returns:
        The system's own `Result`: of classes a `Prediction`.

    Raises:
        UnreadableVideo: not a video, or beyond the limits.
        InputError: views that are not possible, maps that the system does not have, or scores
            that are not finite.
        ResourceError: the GPU's memory does not hold the work.
    """
    bundle = _with_views(bundle, num_views, num_crops)
    clip = _load(bundle, Path(video), attention, limits, update)
    return predict_clip(
        bundle, clip, video=str(video), threads=threads, attention=attention, update=update
    )


def check_attention(bundle: Bundle) -> None:
    """Refuse to ask for maps that there are none of, before any video is read.

    Raises:
        InputError: the system's networks have none.
    """
    bundle.system.needs(bundle, attention=True)


def predict_videos(
    bundle: Bundle,
    videos: Sequence[Path | str],
    *,
    attention: bool | Sequence[bool] = False,
    limits: Limits = NO_LIMITS,
    **options: Any,
) -> Iterator[Any]:
    """Score files, in their order; the next is decoded while one goes through the networks.

    Args:
        bundle: a loaded system.
        videos: files.
        attention: for all, or for each; see `predict_video`.
        limits: what is refused.
        options: `num_views`, `num_crops` and `threads` of `predict_video`.

    Yields:
        A `Result`, or what was wrong with that video; the others go on.
    """
    wanted = [attention] * len(videos) if isinstance(attention, bool) else list(attention)
    bundle = _with_views(bundle, options.pop("num_views", None), options.pop("num_crops", None))

    def read(index: int) -> Any:
        video = Path(videos[index])
        return _caught(lambda: _load(bundle, video, wanted[index], limits, _silent))

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


def _caught(work: Callable[[], Made]) -> Made | FlowsightError:
    """What the work returns, or the plain meaning of what it raises; bugs come out."""
    try:
        return work()
    except Exception as error:
        known = as_flowsight_error(error)
        if known is None:
            raise
        return known


def _with_views(bundle: Bundle, num_views: int | None, num_crops: int | None) -> Bundle:
    served = bundle.system.with_views(bundle.served, num_views, num_crops)
    return dataclasses.replace(bundle, served=served)


def _load(bundle: Bundle, video: Path, attention: bool, limits: Limits, update: Update) -> Any:
    """A video in memory, with what the system needs of it."""
    return bundle.system.load(bundle, video, attention=attention, limits=limits, update=update)


def predict_clip(
    bundle: Bundle,
    loaded: Any,
    *,
    video: str = "",
    num_views: int | None = None,
    num_crops: int | None = None,
    threads: int | None = None,
    attention: bool = False,
    update: Update = _silent,
) -> Any:
    """Score a video that is in memory already.

    Args:
        bundle: a loaded system.
        loaded: by the system's `load`; of systems over clips also by `memory.load` with the
            bundle's settings and all the flow that the system needs.
        video: its name, for the prediction.
        num_views, num_crops, threads, attention, update: as for `predict_video`.

    Raises:
        InputError, ResourceError: as `predict_video`.
    """
    bundle = _with_views(bundle, num_views, num_crops)
    seconds = dict(loaded.seconds)
    with seeding.reproducible(threads or bundle.threads):
        found = bundle.system.predict(
            bundle, loaded, attention=attention, seconds=seconds, update=update
        )
    return found.named(video, {**seconds, "total": sum(seconds.values())})
