"""UCF-101: `videos/<Class>/v_<Class>_gXX_cYY.avi` and the three official lists.

Soomro, Zamir, Shah 2012, "UCF101: A Dataset of 101 Human Actions Classes From Videos in The Wild".
Within a class, `gXX` is one group of clips (same person or background); numbers start again in
every class, so a group is the pair of class and number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flowsight.datasets.layout import (
    FOUND_COLUMNS,
    class_folders,
    read_lines,
    scan,
    split_table,
    stem,
)
from flowsight.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

LISTS = "ucfTrainTestlist"
_GROUP = re.compile(r"_(g\d+)_c\d+$")
_LIST = re.compile(r"(train|test)list0*(\d+)\.txt")
_ENTRY = re.compile(r"(?P<label>[^/]+)/(?P<name>[^/]+\.\w+)(?:\s+(?P<index>\d+))?")


def classes(raw: Path) -> list[str]:
    """Class names in official order, from `classInd.txt` (`1 ApplyEyeMakeup`, or names alone).

    Raises:
        InputError: no list, an empty one, or a name or number twice.
    """
    path = raw / LISTS / "classInd.txt"
    entries: list[tuple[int, str]] = []
    for position, (_, line) in enumerate(read_lines(path), start=1):
        index, *name = line.split(maxsplit=1)
        entries.append((int(index), name[0]) if name and index.isdigit() else (position, line))
    names = [name for _, name in sorted(entries)]
    if not names or len(set(names)) < len(names) or len(dict(entries)) < len(names):
        raise InputError(
            f"expected class numbers and names, each once, in {path}, got {len(names)} lines with "
            f"{len(set(names))} names and {len(dict(entries))} numbers; import the list again"
        )
    return names


def find_clips(raw: Path) -> pd.DataFrame:
    """The videos of `videos/<Class>/`: clip_id, label, group (`<Class>/gXX`), path.

    Raises:
        InputError: a folder of an unknown class, or a name without `_gXX_cYY`.
    """
    found = scan(raw, class_folders(raw / "videos", classes(raw)))
    found["group"] = found.label + "/" + found.stem.map(group_number)
    return found[FOUND_COLUMNS]


def group_number(name: str) -> str:
    """`v_Archery_g03_c01` -> `g03`.

    Raises:
        InputError: the name has another form.
    """
    match = _GROUP.search(name)
    if match is None:
        raise InputError(f"expected a video named v_<Class>_gXX_cYY in videos, got {name!r}")
    return match[1]


def official_splits(raw: Path, clips: pd.DataFrame) -> pd.DataFrame:
    """Every entry of every official list, present or not: clip_id, split_id (`1`), subset.

    Args:
        raw: root of the data set.
        clips: not needed: the lists say all.

    Raises:
        InputError: no lists, a list alone without its partner, an unknown class, or a line of
            another form.
    """
    indices = {name: index for index, name in enumerate(classes(raw), start=1)}
    folder = raw / LISTS
    lists = {
        (match[2], match[1]): path
        for path in sorted(folder.iterdir())
        if (match := _LIST.fullmatch(path.name))
    }
    split_ids = sorted({split_id for split_id, _ in lists}, key=int)
    if not split_ids:
        raise InputError(f"expected trainlist01.txt and testlist01.txt in {folder}, found neither")
    rows: list[tuple[str, str, str]] = []
    for split_id in split_ids:
        for subset in ("train", "test"):
            path = lists.get((split_id, subset), folder / f"{subset}list{int(split_id):02d}.txt")
            rows += [(clip_id, split_id, subset) for clip_id in _read_list(path, indices)]
    return split_table(rows)


def _read_list(path: Path, indices: dict[str, int]) -> Iterator[str]:
    for number, line in read_lines(path):
        match = _ENTRY.fullmatch(line)
        where = f"line {number} of {path}"
        if match is None:
            raise InputError(
                f"expected `<Class>/<clip>.avi [class number]` in {where}, got {line!r}"
            )
        label, index = match["label"], match["index"]
        if label not in indices:
            raise InputError(
                f"unknown class {label!r} in {where}; expected one of the {len(indices)} of "
                "classInd.txt: correct the list or import it again"
            )
        if index is not None and int(index) != indices[label]:
            raise InputError(
                f"expected class number {indices[label]} for {label!r} in {where}, got {index}; "
                "the list and classInd.txt are of different versions"
            )
        yield f"{label}/{stem(match['name'])}"
