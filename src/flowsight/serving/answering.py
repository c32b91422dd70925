"""A server's answers: rows of a request in, one plain answer a row out, never an exception."""

from __future__ import annotations

import base64
import math
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flowsight.attention import pictures
from flowsight.datasets.sampling import even_positions
from flowsight.errors import FlowsightError, InputError, as_flowsight_error
from flowsight.serving import prediction, sources
from flowsight.serving.bundle import Bundle
from flowsight.serving.result import Prediction
from flowsight.serving.settings import Settings
from flowsight.video import pack
from flowsight.video.decode import UnreadableVideo

DEFAULT_TOP = 5
SHOWN_FRAMES = 4
SHOWN_HEIGHT_PX = 120

# torch's number of threads and its deterministic mode belong to the process
_one_at_a_time = threading.Lock()

Row = Mapping[str, Any]
Answer = dict[str, Any]


def answer(bundle: Bundle, rows: Sequence[Row], settings: Settings) -> list[Answer]:
    """Predict the videos of a request.

    Args:
        bundle: a loaded system.
        rows: `video` or `content`, and where wanted `top` (default 5) and `attention`.
        settings: what is allowed.

    Returns:
        One for each row: video, num_frames, duration_sec, seconds, attention, error, and what the
        system says (`OUTPUTS`): label, score, classes and scores (the best `top`), probabilities
        (of each stream, or of the network: class -> share). Where error is not null it says in one
        line what was wrong, and the rest is null.
    """
    if len(rows) > settings.max_videos:
        text = f"expected at most {settings.max_videos} videos in a request, got {len(rows)}"
        return [_failed(bundle, row, text) for row in rows]
    with ExitStack() as stack:
        found = [_prepared(row, settings, stack) for row in rows]
        good = [item for item in found if not isinstance(item, str)]
        with _one_at_a_time:
            results = iter(list(_results(bundle, good, settings)))
        return [
            _failed(bundle, row, item)
            if isinstance(item, str)
            else _told(bundle, row, item, next(results))
            for row, item in zip(rows, found, strict=True)
        ]


class _Wanted:
    """A checked row."""

    def __init__(self, row: Row, video: Path) -> None:
        self.video = video
        self.top = _whole(row.get("top"))
        self.attention = _flag(row.get("attention"))


def _prepared(row: Row, settings: Settings, stack: ExitStack) -> _Wanted | str:
    """The row's video at hand, or what is wrong with the row."""
    try:
        video, content = (_given(row.get(name)) for name in ("video", "content"))
        path = stack.enter_context(sources.local_video(video, content, settings))
        return _Wanted(row, path)
    except Exception as error:
        return _line(error)


def _results(
    bundle: Bundle, wanted: Sequence[_Wanted], settings: Settings
) -> Iterator[Prediction | str]:
    """A prediction or an error for each, whatever happens."""
    done = 0
    try:
        for found in prediction.predict_videos(
            bundle,
            [item.video for item in wanted],
            attention=[item.attention for item in wanted],
            limits=settings.limits,
            threads=settings.threads,
        ):
            done += 1
            yield found if isinstance(found, Prediction) else _line(found)
    except Exception as error:  # a bug; the server answers and lives on
        yield from [_line(error)] * (len(wanted) - done)


def _line(error: Exception) -> str:
    """One line for the client; a bug's traceback goes to the server's log only."""
    if isinstance(error, UnreadableVideo):
        return f"expected a readable video, got {error.reason}"  # without the server's paths
    known = as_flowsight_error(error)
    if isinstance(known, FlowsightError) and isinstance(error, FlowsightError):
        return " ".join(str(known).split())
    traceback.print_exception(error, file=sys.stderr)
    return f"internal error ({type(error).__name__}); the server's log says more"


def _given(value: Any) -> Any:
    """None for what pandas and JSON use for nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return value.item() if isinstance(value, np.generic) else value


def _whole(value: Any) -> int:
    value = _given(value)
    if value is None:
        return DEFAULT_TOP
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value % 1 != 0:
        raise InputError(f"expected `top` as a whole number, got {value!r}")
    if value < 1:
        raise InputError(f"expected `top` of at least 1, got {int(value)}")
    return int(value)


def _flag(value: Any) -> bool:
    value = _given(value)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise InputError(f"expected `attention` as true or false, got {value!r}")
    return value


def _name(row: Row) -> str | None:
    video = _given(row.get("video"))
    return video if isinstance(video, str) else None


def _failed(bundle: Bundle, row: Row, error: str) -> Answer:
    names = (*bundle.system.OUTPUTS, "num_frames", "duration_sec", "seconds", "attention")
    return {"video": _name(row), **dict.fromkeys(names), "error": error}


def _told(bundle: Bundle, row: Row, wanted: _Wanted, found: Prediction | str) -> Answer:
    if isinstance(found, str):
        return _failed(bundle, row, found)
    return {
        **found.record(wanted.top),
        "video": _name(row),
        "attention": shown_attention(found) if wanted.attention else None,
        "error": None,
    }


def shown_attention(found: Prediction) -> dict[str, Any]:
    """Attention of a few frames, small enough for an answer.

    Returns:
        frames (indices), and for each stream (or the network) maps (nested lists, frame x row x
        column, 0..255) and picture (base64 of a PNG: the frames side by side with the map over
        each).
    """
    assert found.attention is not None and found.clip is not None
    count = min(SHOWN_FRAMES, found.num_frames)
    chosen = even_positions(found.num_frames, count).tolist()
    frames = pack.read_frames(found.clip.frames, chosen)  # type: ignore[arg-type]
    answer: dict[str, Any] = {"frames": chosen}
    for name, every in found.attention.items():
        maps = every[chosen]
        laid = [_small(pictures.overlay(f, m)) for f, m in zip(frames, maps, strict=True)]
        answer[name] = {"maps": maps.tolist(), "picture": _png(np.concatenate(laid, axis=1))}
    return answer


def _small(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    if height <= SHOWN_HEIGHT_PX:
        return image
    size = (max(1, round(width * SHOWN_HEIGHT_PX / height)), SHOWN_HEIGHT_PX)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _png(image: np.ndarray) -> str:
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return base64.b64encode(data.tobytes()).decode("ascii")
