"""HMDB-51: `videos/<class>/<clip>.avi` and `<class>_test_split<k>.txt`.

Kuehne, Jhuang, Garrote, Poggio, Serre 2011, "HMDB: A Large Video Database for Human Motion
Recognition". A clip's name is `<source>_<class>_<body>_<camera>_np<n>_<view>_<quality>_<i>`; clips
of one source and class are one group. (Over classes the official lists do not keep sources apart:
133 of them have clips in training and test of split 1.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flowsight.datasets.layout import (
    FOUND_COLUMNS,
    check_name,
    class_folders,
    read_lines,
    scan,
    split_table,
    stem,
)
from flowsight.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

LISTS = "testTrainMulti_7030_splits"
SUBSETS = {"0": None, "1": "train", "2": "test"}
_LIST = re.compile(r"(.+)_test_split(\d+)\.txt")
_TAGS = r"_[a-z]+_(?:cm|nm)_np\d+_(?:fr|ba|le|ri)_(?:goo|med|bad)_\d+"


def _lists(raw: Path) -> dict[tuple[str, str], Path]:
    """(class, split_id) -> list; complete: every class has every split."""
    folder = raw / LISTS
    if not folder.is_dir():
        raise InputError(f"expected <class>_test_split1.txt in {folder}, found no such folder")
    found = {
        (match[1], match[2]): path
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and (match := _LIST.fullmatch(path.name))
    }
    if not found:
        raise InputError(f"expected <class>_test_split1.txt in {folder}, found no such list")
    for label in sorted({label for label, _ in found}):
        for split_id in sorted({split_id for _, split_id in found}):
            if (label, split_id) not in found:
                raise InputError(
                    f"expected {label}_test_split{split_id}.txt in {folder}, found other splits of "
                    "the class but not this one; import the lists again"
                )
    return found


def classes(raw: Path) -> list[str]:
    """Class names, sorted (HMDB-51 numbers none), from the names of the lists."""
    return sorted({label for label, _ in _lists(raw)})


def find_clips(raw: Path) -> pd.DataFrame:
    """The videos of `videos/<class>/`: clip_id, label, group (`<class>/<source>`), path."""
    found = scan(raw, class_folders(raw / "videos", classes(raw)))
    pairs = zip(found.label, found.stem, strict=True)
    found["group"] = [f"{label}/{source(name, label)}" for label, name in pairs]
    return found[FOUND_COLUMNS]


def source(name: str, label: str) -> str:
    """The source video's part of a clip's name; the whole name where it has another form."""
    match = re.fullmatch(rf"(.+?)_{re.escape(label)}{_TAGS}", name)
    return match[1] if match else name


def official_splits(raw: Path, clips: pd.DataFrame) -> pd.DataFrame:
    """Every training and test entry of every list; unused clips (0) are left out.

    Args:
        raw: root of the data set.
        clips: what `find_clips` returned; a list names no other class's clip.

    Raises:
        InputError: no lists, a class without one of them, or a line of another form.
    """
    rows: list[tuple[str, str, str]] = []
    for (label, split_id), path in _lists(raw).items():
        for name, subset in _read_list(path):
            rows.append((f"{label}/{stem(name)}", split_id, subset))
    return split_table(rows)


def _read_list(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in read_lines(path):
        name, _, use = line.rpartition(" ")
        if not name.strip() or use not in SUBSETS:
            raise InputError(
                f"expected `<clip>.avi 0|1|2` in line {number} of {path}, got {line!r}"
            )
        check_name(name.strip(), path)
        subset = SUBSETS[use]
        if subset is not None:
            yield name.strip(), subset
