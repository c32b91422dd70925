"""Numbers and pictures as the page writes them."""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Any


def percent(share: float | None, digits: int = 1) -> str:
    """0.8437 -> `84.4`; nothing for a missing number."""
    if share is None or math.isnan(share):
        return ""
    return f"{100 * share:.{digits}f}"


def percent_sign(share: float) -> str:
    """0.8437 -> `84.4 %`, never broken between number and sign."""
    return f"{percent(share)}\u00a0%"


def points(difference: float | None) -> str:
    """Difference of shares in percentage points with its sign: -0.031 -> `−3.1`."""
    if difference is None or math.isnan(difference):
        return ""
    rounded = round(100 * difference, 1)
    if rounded == 0:
        return "0.0"
    return f"{'+' if rounded > 0 else '−'}{abs(rounded):.1f}"


def number(count: float) -> str:
    """Thousands apart by a thin space: 13320 -> `13 320`."""
    return f"{int(count):,}".replace(",", "\u202f")


def plural(count: int, word: str) -> str:
    """`1 clip`, `2 clips`, `3 classes`."""
    ending = "" if count == 1 else "es" if word.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{number(count)} {word}{ending}"


def value_text(value: Any) -> str:
    """A parameter's value as people write it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(value_text(item) for item in value) or "none"
    return str(value)


def data_uri(picture: Path) -> str:
    """A PNG as a `data:` address."""
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode("ascii")


def picture_size(picture: Path) -> tuple[int, int]:
    """Width and height of a PNG in px, from its header."""
    header = picture.read_bytes()[:24]
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")
