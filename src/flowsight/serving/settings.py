"""What a server may do, by its environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from flowsight.errors import InputError
from flowsight.serving.memory import Limits

URL_MODES = ("0", "1", "any")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a server; `from_environment` documents the variables."""

    root: Path | None
    """Folder below which videos may be named; None: no paths."""
    urls: str
    """`0`: none; `1`: of public hosts; `any`: also of this machine and its network."""
    limits: Limits
    max_videos: int
    """In one request."""
    threads: int | None
    """Of torch; None: the pipeline's."""


def from_environment() -> Settings:
    """Read the server's settings.

    | variable | meaning | default |
    |---|---|---|
    | `FLOWSIGHT_SERVE_ROOT` | folder that `video` names files in | none: no paths |
    | `FLOWSIGHT_SERVE_URLS` | `1`: http(s) URLs of public hosts; `any`: of all hosts | `0` |
    | `FLOWSIGHT_SERVE_MAX_MB` | largest video | 200 |
    | `FLOWSIGHT_SERVE_MAX_SEC` | longest video | 60 |
    | `FLOWSIGHT_SERVE_MAX_FRAMES` | most frames | 3000 |
    | `FLOWSIGHT_SERVE_MAX_SIDE` | widest or tallest video, px | 4096 |
    | `FLOWSIGHT_SERVE_MAX_VIDEOS` | videos in one request | 16 |
    | `FLOWSIGHT_SERVE_THREADS` | CPU threads of torch | the pipeline's |

    Raises:
        InputError: a variable that is not what it must be.
    """
    limits = Limits(
        max_bytes=int(_number("MAX_MB", 200) * 1e6),
        max_sec=_number("MAX_SEC", 60),
        max_frames=int(_number("MAX_FRAMES", 3000)),
        max_side_px=int(_number("MAX_SIDE", 4096)),
    )
    urls = os.environ.get("FLOWSIGHT_SERVE_URLS") or "0"
    if urls not in URL_MODES:
        raise InputError(f"expected FLOWSIGHT_SERVE_URLS as one of {URL_MODES}, got {urls!r}")
    return Settings(
        root=_root(),
        urls=urls,
        limits=limits,
        max_videos=int(_number("MAX_VIDEOS", 16)),
        threads=int(_number("THREADS", 0)) or None,
    )


def _root() -> Path | None:
    text = os.environ.get("FLOWSIGHT_SERVE_ROOT")
    if not text:
        return None
    if not Path(text).is_dir():
        raise InputError(f"expected a folder in FLOWSIGHT_SERVE_ROOT, got {text}")
    return Path(text).resolve()


def _number(name: str, default: float) -> float:
    text = os.environ.get(f"FLOWSIGHT_SERVE_{name}") or str(default)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (0 <= value < 1e9) or (value == 0 and name != "THREADS"):
        raise InputError(f"expected FLOWSIGHT_SERVE_{name} as a positive number, got {text!r}")
    return value
