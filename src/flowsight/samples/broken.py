"""Clips that are broken on purpose, so that whoever reads the data set must cope with them."""

from __future__ import annotations

from pathlib import Path

BROKEN = {
    "truncated": "ends inside the header: no frame decodes",
    "empty": "zero bytes",
    "text": "a text file with a video's name",
    "short": "the header promises all frames, the file ends earlier: it decodes, but fewer frames",
}
"""What can be wrong with a clip."""

_TEXT = "This is not a video.\nThe download answered with a page instead of a file.\n"


def write_broken(kind: str, whole: Path, out: Path) -> None:
    """Write a broken clip.

    Args:
        kind: a key of `BROKEN`.
        whole: a sound AVI file, the one that is broken.
        out: the file to write.
    """
    content = whole.read_bytes()
    if kind == "truncated":
        content = content[: content.index(b"movi") - 12]
    elif kind == "empty":
        content = b""
    elif kind == "text":
        content = _TEXT.encode()
    elif kind == "short":
        content = content[: _end_of_frame(content, share=0.6)]
    else:
        raise ValueError(f"expected one of {', '.join(BROKEN)}, got {kind!r}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(content)


def _end_of_frame(content: bytes, share: float) -> int:
    """Offset just behind the frame with which the given share of the frames is complete."""
    starts = []
    at = content.index(b"movi") + 4
    while content[at : at + 4] == b"00dc":
        starts.append(at)
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
    starts.append(at)
    return starts[max(1, round(share * (len(starts) - 1)))]
