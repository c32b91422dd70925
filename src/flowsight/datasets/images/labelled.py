"""Images with one class each: found, looked at, split and read; no torch.

Layout: FER2013's `<train|test>/<class>/<name>.png` (or any other suffix of images). What validates
is cut from the training pictures, unless the folder brings its own: `val/<class>/`, or FER2013's
`PublicTest_*` among the test pictures. Every picture ends in the status table: ok, or quarantined
with a reason. A test picture whose bytes also train is told there (`duplicate_of`), not refused, so
that accuracy with and without such pictures can be told.

Pictures that belong together (of one person) are told by a table `groups.csv` (image, group) beside
the folders; a group stands on one side only. Without it equal bytes make a group.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flowsight import files
from flowsight.datasets import tables
from flowsight.datasets.grouping import choose_groups
from flowsight.datasets.images.pairs import IMAGE_SUFFIXES, read_image
from flowsight.datasets.layout import check_inside, check_name, class_folders, visible
from flowsight.errors import GateError, InputError
from flowsight.progress import track

if TYPE_CHECKING:
    pass

SIDES = ("train", "val", "test")
ORDER = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral", "contempt")
"""FER2013's classes as its own file numbers them, then AffectNet's eighth. A data set with classes
of these only keeps this order; any other one has its classes by name."""
PUBLIC = "PublicTest_"
"""FER2013's file names of what its authors gave to validate on."""
GROUPS = "groups.csv"
ITEMS = ["item_id", "image", "label", "group", "sha256", "width", "height"]
STATUS = ["item_id", "status", "reason", "duplicate_of"]
CLASSES = ["index", "label"]
SPLIT = ["item_id", "subset"]
_MIN_SIDE_PX = 16
Item = Mapping[str, str | int]
"""A line of `items.csv`."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """One image with its class."""

    item_id: str
    image: Path
    label: int
    """Index in `classes.csv`."""
    subset: str
    duplicate_of: str
    """Training or validation item with the same bytes, of a test item; else empty."""


class _Found(NamedTuple):
    """A picture that is there."""

    item_id: str
    path: Path
    label: str
    side: str


def write_labelled(
    raw: Path,
    out: Path,
    *,
    split_ids: Sequence[str],
    val_share: float,
    seed: int,
    max_quarantined: float,
    side_px: int | None = None,
) -> None:
    """Look at every picture; write items, status, classes and `splits/<id>.csv`, all or none.

    Args:
        raw: the data set, never changed.
        out: folder to make.
        split_ids: each name is another choice of what validates; the test pictures stay.
        val_share: share of the training pictures that validate, whole groups only; of no meaning
            where the folder brings its own.
        seed: decides, with the split's and each group's name, which groups those are.
        max_quarantined: share of the pictures that may be refused.
        side_px: width and height that every picture must have; None: any.

    Raises:
        InputError: no such folders, classes that differ between them, a group on two sides.
        GateError: too many are refused.
    """
    groups = _groups(raw)
    rows, refused, sides = [], {}, {}
    for found in track(list(find(raw)), "looking at pictures"):
        try:
            rows.append(_row(raw, found, groups, side_px))
            sides[found.item_id] = found.side
        except InputError as error:
            refused[found.item_id] = str(error)
    _gate(raw, len(rows), refused, max_quarantined)
    classes = _classes(raw, _by_side(rows, sides, "label"))
    if groups is not None:
        _check_sides(raw, _by_side(rows, sides, "group"))
    splits = {s: _split(rows, sides, val_share, f"{seed}/{s}") for s in split_ids}
    _write(out, rows, _status(rows, sides, refused), classes, splits)


def find(raw: Path) -> Iterator[_Found]:
    """Every picture, by item id (`<side>/<class>/<stem>`).

    Raises:
        InputError: no folder `train` or `test`, a bad name, or two pictures of one id.
    """
    for needed in ("train", "test"):
        if not (raw / needed).is_dir():
            raise InputError(
                f"expected {needed}/<class>/<picture> in {raw}, found no such folder; run "
                f"`flowsight import {raw.name} SOURCE`"
            )
    for folder in (raw / side for side in sorted(SIDES) if (raw / side).is_dir()):
        for own in class_folders(folder):
            yield from _pictures(raw, own, folder.name)


def _pictures(raw: Path, folder: Path, side: str) -> Iterator[_Found]:
    seen: dict[str, Path] = {}
    for path in visible(folder):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.is_dir():
            continue
        check_name(path.name, folder)
        check_inside(path, raw)
        item_id = f"{side}/{folder.name}/{path.stem}"
        if seen.setdefault(item_id, path) != path:
            raise InputError(f"expected one picture {item_id}, got {seen[item_id]} and {path}")
        public = side == "test" and path.name.startswith(PUBLIC)
        yield _Found(item_id, path, folder.name, "val" if public else side)


def _groups(raw: Path) -> dict[str, str] | None:
    """Picture -> group by the folder's own table; None: there is none."""
    if not (raw / GROUPS).is_file():
        return None
    table = tables.read(raw / GROUPS, ["image", "group"])
    return dict(zip(table["image"], table["group"], strict=True))


def _row(raw: Path, found: _Found, groups: Mapping[str, str] | None, side_px: int | None) -> Item:
    height, width = read_image(found.path).shape[:2]  # in full: what training would stumble over
    if side_px is not None and (width, height) != (side_px, side_px):
        raise InputError(f"expected {side_px} x {side_px} px, got {width} x {height}")
    if min(width, height) < _MIN_SIDE_PX:
        raise InputError(f"expected at least {_MIN_SIDE_PX} px a side, got {width} x {height}")
    image, digest = found.path.relative_to(raw).as_posix(), files.sha256(found.path)
    if groups is not None and image not in groups:
        raise InputError(f"{GROUPS} names no group of it")
    return {
        "item_id": found.item_id,
        "image": image,
        "label": found.label,
        "group": digest[:16] if groups is None else groups[image],
        "sha256": digest,
        "width": width,
        "height": height,
    }


def _gate(raw: Path, num_read: int, refused: Mapping[str, str], max_quarantined: float) -> None:
    total = num_read + len(refused)
    if total == 0:
        raise InputError(f"expected pictures in {raw}/train/<class>, found none")
    if refused:
        first, reason = next(iter(refused.items()))
        text = f"{len(refused)} of {total} pictures of {raw} are refused ({first}: {reason})"
        if len(refused) > max_quarantined * total:
            raise GateError(
                f"expected at most {max_quarantined:g} of the pictures to be refused, {text}; mend "
                "them or raise data.max_quarantined"
            )
        print(f"warning: {text}; see status.csv", file=sys.stderr)


def _by_side(rows: Sequence[Item], sides: Mapping[str, str], column: str) -> dict[str, set[str]]:
    """What stands in a column, by side."""
    found: dict[str, set[str]] = {side: set() for side in SIDES}
    for row in rows:
        found[sides[str(row["item_id"])]].add(str(row[column]))
    return found


def _classes(raw: Path, labels: Mapping[str, set[str]]) -> list[str]:
    """Class names in order.

    Raises:
        InputError: fewer than two classes train, or others than these test.
    """
    train = labels["train"]
    if len(train) < 2:
        raise InputError(f"expected at least two classes in {raw}/train, got {len(train)}")
    if not labels["test"]:
        raise InputError(f"expected pictures in {raw}/test, found none that can be read")
    unknown = sorted((labels["val"] | labels["test"]) - train)
    if unknown:
        raise InputError(
            f"expected classes that train, got {', '.join(unknown)} outside {raw}/train only; "
            "rename or remove them"
        )
    return [name for name in ORDER if name in train] if train <= set(ORDER) else sorted(train)


def _check_sides(raw: Path, groups: Mapping[str, set[str]]) -> None:
    both = sorted(groups["test"] & (groups["train"] | groups["val"]))
    if both:
        raise InputError(
            f"expected no group of {raw / GROUPS} on two sides, got {', '.join(both[:3])}; a test "
            "picture must be nobody's that trains"
        )


def _split(
    rows: Sequence[Item], sides: Mapping[str, str], val_share: float, key: str
) -> dict[str, str]:
    """Item -> subset."""
    subsets = {str(row["item_id"]): sides[str(row["item_id"])] for row in rows}
    if "val" in subsets.values():
        return subsets
    train = [row for row in rows if subsets[str(row["item_id"])] == "train"]
    labels, groups = ([str(row[name]) for row in train] for name in ("label", "group"))
    chosen = choose_groups(labels, groups, share=val_share, key=key)
    return subsets | {str(r["item_id"]): "val" for r in train if r["group"] in chosen}


def _status(
    rows: Sequence[Item], sides: Mapping[str, str], refused: Mapping[str, str]
) -> list[tuple[str, ...]]:
    first: dict[str, str] = {}
    for row in rows:
        if sides[str(row["item_id"])] != "test":
            first.setdefault(str(row["sha256"]), str(row["item_id"]))
    table = []
    for row in rows:
        item = str(row["item_id"])
        twin = first.get(str(row["sha256"]), "") if sides[item] == "test" else ""
        table.append((item, "ok", f"same bytes as {twin}" if twin else "", twin))
    table += [(item, "quarantined", reason, "") for item, reason in refused.items()]
    return sorted(table)


def _write(
    out: Path,
    rows: Sequence[Item],
    status: Sequence[tuple[str, ...]],
    classes: Sequence[str],
    splits: Mapping[str, Mapping[str, str]],
) -> None:
    import pandas as pd

    with files.atomic_dir(out) as folder:
        table = pd.DataFrame(rows, columns=ITEMS).sort_values("item_id")
        files.write_csv(table, folder / "items.csv")
        files.write_csv(pd.DataFrame(status, columns=STATUS), folder / "status.csv")
        table = pd.DataFrame(list(enumerate(classes)), columns=CLASSES)
        files.write_csv(table, folder / "classes.csv")
        (folder / "splits").mkdir()
        for name, subsets in splits.items():
            table = pd.DataFrame(sorted(subsets.items()), columns=SPLIT)
            files.write_csv(table, folder / "splits" / f"{name}.csv")


def load_labelled(raw: Path, items: Path, split_id: str) -> tuple[list[Labelled], list[str]]:
    """The pictures of a split, by id, and the class names.

    Args:
        raw: the data set's folder.
        items: folder that `write_labelled` made.
        split_id: one of its splits.

    Raises:
        InputError: a table is missing or another one.
    """
    subsets = tables.read(items / "splits" / f"{split_id}.csv", SPLIT)
    table = tables.read(items / "items.csv", ITEMS).merge(subsets, validate="one_to_one")
    twins = tables.read(items / "status.csv", STATUS).set_index("item_id")["duplicate_of"]
    classes = tables.read(items / "classes.csv", CLASSES)["label"].tolist()
    found = [
        Labelled(
            item_id=row["item_id"],
            image=raw / row["image"],
            label=classes.index(row["label"]),
            subset=row["subset"],
            duplicate_of=twins[row["item_id"]],
        )
        for row in table.to_dict("records")
    ]
    return found, classes
