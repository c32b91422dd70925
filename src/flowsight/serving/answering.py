"""A server's answers: rows of a request in, one plain answer a row out, never an exception."""

from __future__ import annotations

import math
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from flowsight.contract import System
from flowsight.errors import FlowsightError, InputError, as_flowsight_error
from flowsight.serving import prediction, sources
from flowsight.serving.bundle import Bundle
from flowsight.serving.result import Result
from flowsight.serving.settings import Settings
from flowsight.video.decode import UnreadableVideo

DEFAULT_TOP = 5

# torch's number of threads and its deterministic mode belong to the process
_one_at_a_time = threading.Lock()

Row = Mapping[str, Any]
Answer = dict[str, Any]


def answer(bundle: Bundle, rows: Sequence[Row], settings: Settings) -> list[Answer]:
    """Predict the videos or images of a request.

    Args:
        bundle: a loaded system.
        rows: `content`, or the file's name as `video` (`image` for a system that looks at those),
            and where wanted `top` (default 5) and `attention` (`map`, `masks`: the system's
            `REQUEST`).
        settings: what is allowed.

    Returns:
        One for each row: the name, seconds, error, and what the system says (`OUTPUTS`). Of
        classes: label, score, classes and scores (the best `top`), probabilities (of each stream,
        or of the network: class -> share), num_frames, duration_sec, attention. Where error is not
        null it says in one line what was wrong, and the rest is null.
    """
    if len(rows) > settings.max_videos:
        kind = bundle.system.INPUT
        text = f"expected at most {settings.max_videos} {kind}s in a request, got {len(rows)}"
        return [_failed(bundle, row, text) for row in rows]
    with ExitStack() as stack:
        found = [_prepared(bundle.system, row, settings, stack) for row in rows]
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

    def __init__(self, system: System, row: Row, path: Path) -> None:
        self.path = path
        self.top = _whole(row.get("top")) if system.TOP else DEFAULT_TOP
        self.attention = _flag(row.get(system.REQUEST), system.REQUEST)


def _prepared(system: System, row: Row, settings: Settings, stack: ExitStack) -> _Wanted | str:
    """The row's file at hand, or what is wrong with the row."""
    try:
        name, content = (_given(row.get(column)) for column in (system.INPUT, "content"))
        path = stack.enter_context(sources.local_file(name, content, settings, system.INPUT))
        return _Wanted(system, row, path)
    except Exception as error:
        return _line(error)


def _results(
    bundle: Bundle, wanted: Sequence[_Wanted], settings: Settings
) -> Iterator[Result | str]:
    """A prediction or an error for each, whatever happens."""
    done = 0
    try:
        for found in prediction.predict_videos(
            bundle,
            [item.path for item in wanted],
            attention=[item.attention for item in wanted],
            limits=settings.limits,
            threads=settings.threads,
        ):
            done += 1
            yield _line(found) if isinstance(found, FlowsightError) else found
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


def _flag(value: Any, name: str) -> bool:
    value = _given(value)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise InputError(f"expected `{name}` as true or false, got {value!r}")
    return value


def _name(bundle: Bundle, row: Row) -> dict[str, str | None]:
    """The file's name as the request gave it; where it did not, none of our own."""
    kind = bundle.system.INPUT
    name = _given(row.get(kind))
    return {kind: name if isinstance(name, str) else None}


def _failed(bundle: Bundle, row: Row, error: str) -> Answer:
    names = (*bundle.system.OUTPUTS, "seconds")
    return {**_name(bundle, row), **dict.fromkeys(names), "error": error}


def _told(bundle: Bundle, row: Row, wanted: _Wanted, found: Result | str) -> Answer:
    if isinstance(found, str):
        return _failed(bundle, row, found)
    return {
        **found.record(wanted.top),
        **_name(bundle, row),
        **found.requested(),
        "error": None,
    }
