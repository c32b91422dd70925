"""Where a request's file is: a path below the served folder, a URL, or bytes in the request."""

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
def local_file(name: Any, content: Any, settings: Settings, kind: str = "video") -> Iterator[Path]:
    """A request's video or image as a file.

    Args:
        name: path below `settings.root`, or a URL; None where `content` is given.
        content: base64, possibly after `data:...;base64,`.
        settings: what is allowed.
        kind: `video` or `image`, the column of the request that holds the name.

    Yields:
        The file; one that was made for the request is removed afterwards.

    Raises:
        InputError: neither or both given, not allowed, not found, not base64, or too large.
        ResourceError: a URL that does not answer.
    """
    if bool(name) == bool(content):
        raise InputError(f"expected either `{kind}` or `content` for each {kind}")
    if not isinstance(name or content, str):
        raise InputError(f"expected text, got {type(name or content).__name__}")
    if name and not fetching.is_url(name):
        yield path_below(settings.root, name, kind)
        return
    with tempfile.TemporaryDirectory(prefix="flowsight-serve-") as folder:
        target = Path(folder) / kind
        if name:
            fetching.fetch(name, target, mode=settings.urls, limits=settings.limits)
        else:
            target.write_bytes(decoded(content, settings.limits.max_bytes))
        yield target


def path_below(root: Path | None, text: str, kind: str = "video") -> Path:
    """The file of this name below the served folder, with symbolic links followed.

    Raises:
        InputError: no served folder, a path that leads out of it (nothing is said of what is
            there), or no such file.
    """
    if root is None:
        raise InputError(
            f"expected FLOWSIGHT_SERVE_ROOT to name the folder of the {kind}s; "
            "start the server with it, or send `content`"
        )
    outside = InputError(f"expected a path below the served folder, got {text!r}")
    if "\0" in text or Path(text).is_absolute() or ".." in Path(text).parts:
        raise outside
    try:
        found = (root / text).resolve()
        inside = found.is_relative_to(root)
        # neither a folder nor a pipe, which would be waited for
        there = inside and found.is_file()
    except (OSError, RuntimeError):  # a loop of links, a name too long
        raise outside from None
    if not inside:
        raise outside
    if not there:
        article = "an" if kind == "image" else "a"
        raise InputError(
            f"expected {article} {kind} at {text!r} below the served folder, found no file"
        )
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
