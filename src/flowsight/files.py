"""Files that appear whole or not at all, and the same bytes for the same content."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def atomic_dir(out: Path | str) -> Iterator[Path]:
    """Fill a folder beside `out`, then put it in `out`'s place.

    Args:
        out: the folder to make; an old one is replaced only when the block succeeds.

    Yields:
        An empty temporary folder on the same file system.
    """
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp makes it private
        if out.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}-old-", dir=out.parent))
            out.replace(old / "old")
            temporary.replace(out)
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def atomic_file(out: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `out`; rename it to `out` when the block succeeds."""
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{out.name}-", dir=out.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def scratch(key: str) -> Path:
    """Folder for work that is not finished, kept outside the pipeline's outputs.

    Below `$FLOWSIGHT_SCRATCH` (default `build/scratch`; on a cluster a folder all workers see).

    Args:
        key: `<stage>/<hash of all that goes into it>`, so that other settings never meet it.
    """
    return Path(os.environ.get("FLOWSIGHT_SCRATCH") or "build/scratch") / key


def write_csv(frame: pd.DataFrame, path: Path | str, **options: Any) -> None:
    """Write a table without an index, with LF line ends, atomically."""
    with atomic_file(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n", **options)


def write_json(content: Any, path: Path | str) -> None:
    """Write JSON with sorted keys and a final newline, atomically."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    with atomic_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def copy(source: Path | str, out: Path | str) -> None:
    """Copy a file, atomically."""
    with atomic_file(out) as temporary:
        shutil.copyfile(source, temporary)


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
