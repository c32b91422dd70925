"""What every adapter needs: class folders, safe names, lists of any line ending.

A data set is a folder that is never edited. Names found in it become clip ids, paths of outputs
and members of archives, so they are checked here, once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from flowsight.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".mpg", ".mpeg", ".m4v", ".webm", ".wmv")
FOUND_COLUMNS = ["clip_id", "label", "group", "path"]
SPLIT_COLUMNS = ["clip_id", "split_id", "subset"]


def check_name(name: str, where: Path | str) -> str:
    """Refuse a name that could leave its folder or break a table.

    Spaces, brackets, `!`, `+` and letters of any language are fine: real data sets have them.

    Args:
        name: one component of a path.
        where: folder or list it stands in, for the message.

    Raises:
        InputError: `.`, `..`, a separator, a control character or bytes that are not text.
    """
    bad = name in ("", ".", "..") or "/" in name or "\\" in name or not name.isprintable()
    if bad or any("\ud800" <= letter <= "\udfff" for letter in name):
        raise InputError(f"expected a plain file or class name in {where}, got {name!r}; rename it")
    return name


def check_inside(path: Path, root: Path) -> Path:
    """Return `path` with links followed, and refuse one that leads out of `root`.

    Raises:
        InputError: it does.
    """
    resolved = path.resolve()
    if not resolved.is_relative_to(root.resolve()):
        raise InputError(
            f"expected {path} inside {root}, but it is a link that leads out of it; "
            "put the file itself there"
        )
    return resolved


def visible(folder: Path) -> list[Path]:
    """Entries of a folder, sorted by name; hidden ones (`.DS_Store`, `._clip.avi`) left out."""
    return sorted(
        (path for path in folder.iterdir() if not path.name.startswith(".")),
        key=lambda path: os.fsencode(path.name),
    )


def class_folders(videos: Path, known: Iterable[str] | None = None) -> list[Path]:
    """The folders `<class>/`, sorted by name.

    Args:
        videos: folder that holds them.
        known: class names; any other folder is refused (a typo would become a class).

    Raises:
        InputError: no such folder, or an unknown class in it.
    """
    if not videos.is_dir():
        raise InputError(f"expected class folders in {videos}, found no such folder")
    folders = [path for path in visible(videos) if path.is_dir()]
    names = None if known is None else set(known)
    for folder in folders:
        check_name(folder.name, videos)
        if names is not None and folder.name not in names:
            raise InputError(
                f"unknown class {folder.name!r} in {videos}; expected one of the "
                f"{len(names)} classes of the lists: rename or remove the folder"
            )
    return folders


def scan(raw: Path, folders: Iterable[Path]) -> pd.DataFrame:
    """List the videos of class folders.

    Args:
        raw: root of the data set; paths are relative to it.
        folders: class folders below it.

    Returns:
        clip_id (`<label>/<stem>`), label, stem and path (POSIX), sorted by clip_id.

    Raises:
        InputError: a name that is not plain, a link out of `raw`, or two videos of one name.
    """
    import pandas as pd

    rows: dict[str, tuple[str, str, str, str]] = {}
    for folder in folders:
        for path in visible(folder):
            if path.suffix.lower() not in VIDEO_SUFFIXES or path.is_dir():
                continue
            check_name(path.name, folder)
            check_inside(path, raw)
            clip_id = f"{folder.name}/{path.stem}"
            relative = path.relative_to(raw).as_posix()
            if clip_id in rows:
                raise InputError(
                    f"expected one video for clip {clip_id!r}, found {rows[clip_id][3]} and "
                    f"{relative} in {raw}; remove one"
                )
            rows[clip_id] = (clip_id, folder.name, path.stem, relative)
    table = pd.DataFrame(sorted(rows.values()), columns=["clip_id", "label", "stem", "path"])
    return table.astype(str)


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Non-empty lines of a list with their numbers (from 1), blanks at both ends removed.

    LF, CRLF and a byte-order mark are all fine.

    Raises:
        InputError: no such file, or not text.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"expected the official list {path}, found no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"expected a text list in {path}, got other bytes ({error})") from None
    if "\0" in text:
        raise InputError(f"expected a text list in {path}, got binary content; import it again")
    numbered = enumerate(text.split("\n"), start=1)
    return [(number, line.strip()) for number, line in numbered if line.strip()]


def split_table(rows: Iterable[tuple[str, str, str]]) -> pd.DataFrame:
    """Make the table of official splits from (clip_id, split_id, subset); repeats fall together.

    Raises:
        InputError: a clip is in two subsets of one split.
    """
    import pandas as pd

    table = pd.DataFrame(sorted(set(rows)), columns=SPLIT_COLUMNS).astype(str)
    twice = table[table.duplicated(["clip_id", "split_id"])]
    if len(twice):
        first = twice.iloc[0]
        raise InputError(
            f"expected every clip once in split {first.split_id}, found {first.clip_id!r} in both "
            "train and test; correct the official list"
        )
    return table


def stem(name: str) -> str:
    """File name without its video suffix (`a.b.avi` -> `a.b`)."""
    base, dot, suffix = name.rpartition(".")
    return base if dot and f".{suffix.lower()}" in VIDEO_SUFFIXES else name
