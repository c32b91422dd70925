"""Where a request's video is: a path below the served folder, a URL, or bytes in the request."""

from __future__ import annotations

import base64
import binascii
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowsight.errors import InputError
from flowsight.serving import fetching
from flowsight.serving.settings import Settings


@contextmanager
def local_video(video: Any, content: Any, settings: Settings) -> Iterator[Path]:
    """A request's video as a file.

    Args:
        video: path below `settings.root`, or a URL; None where `content` is given.
        content: base64, possibly after `data:...;base64,`.
        settings: what is allowed.

    Yields:
        The file; one that was made for the request is removed afterwards.

    Raises:
        InputError: neither or both given, not allowed, not found, not base64, or too large.
        ResourceError: a URL that does not answer.
    """
    if bool(video) == bool(content):
        raise InputError("expected either `video` or `content` for each video")
    if not isinstance(video or content, str):
        raise InputError(f"expected text, got {type(video or content).__name__}")
    if video and not fetching.is_url(video):
        yield path_below(settings.root, video)
        return
    with tempfile.TemporaryDirectory(prefix="flowsight-serve-") as folder:
        target = Path(folder) / "video"
        if video:
            fetching.fetch(video, target, mode=settings.urls, limits=settings.limits)
        else:
            target.write_bytes(decoded(content, settings.limits.max_bytes))
        yield target


def path_below(root: Path | None, text: str) -> Path:
    """The file of this name below the served folder, with symbolic links followed.

    Raises:
        InputError: no served folder, a path that leads out of it (nothing is said of what is
            there), or no such file.
    """
    if root is None:
        raise InputError(
            "expected FLOWSIGHT_SERVE_ROOT to name the folder of the videos; "
            "start the server with it, or send `content`"
        )
    outside = InputError(f"expected a path below the served folder, got {text!r}")
    if "\0" in text or Path(text).is_absolute() or ".." in Path(text).parts:
        raise outside
    try:
        found = (root / text).resolve()
    except (OSError, RuntimeError):  # a loop of links, a name too long
        raise outside from None
    if not found.is_relative_to(root):
        raise outside
    if not found.is_file():  # neither a folder nor a pipe, which would be waited for
        raise InputError(f"expected a video at {text!r} below the served folder, found no file")
    return found


def decoded(content: str, max_bytes: int | None) -> bytes:
    """Bytes of base64 text.

    Raises:
        InputError: not base64, or more bytes than allowed.
    """
    if content.startswith("data:"):
        head, _, content = content.partition(",")
        if not head.endswith(";base64"):
            raise InputError("expected `content` as base64, got a data URL of another encoding")
    if max_bytes is not None and len(content) > max_bytes * 4 / 3 + 4:
        raise InputError(f"expected at most {max_bytes / 1e6:g} MB in `content`, got more")
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise InputError("expected `content` as base64, got other text") from None
