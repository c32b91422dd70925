"""What is expected of the manifest, the clips and the splits: tables and checks, as plain data.

`validation.py` hands them to Great Expectations; the names of checks are its class names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsight.datasets import tables
from flowsight.datasets.clips import gate_tables

if TYPE_CHECKING:
    import pandas as pd

MAX_SIDE_PX = 16384
MAX_FPS = 1000.0


@dataclass(frozen=True, kw_only=True)
class Check:
    """One expectation."""

    name: str
    """Great Expectations' class."""
    says: str
    """What is expected, in words."""
    options: dict[str, Any] = field(default_factory=dict)
    warning: bool = False
    """Tell, do not refuse."""
    culprits: str | None = None
    """For a check on a whole column: the column whose ones name the rows behind a failure."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table and what is expected of it."""

    name: str
    frame: pd.DataFrame
    key: tuple[str, ...]
    """Columns that name a row to people."""
    checks: tuple[Check, ...]


def unique(column: str, says: str, *, warning: bool = False) -> Check:
    """No value twice."""
    name = "ExpectColumnValuesToBeUnique"
    return Check(name=name, says=says, options={"column": column}, warning=warning)


def unique_together(columns: Sequence[str], says: str) -> Check:
    """No combination of values twice."""
    name = "ExpectCompoundColumnsToBeUnique"
    return Check(name=name, says=says, options={"column_list": list(columns)})


def one_of(column: str, values: Sequence[Any], says: str) -> Check:
    """Only these values."""
    options = {"column": column, "value_set": list(values)}
    return Check(name="ExpectColumnValuesToBeInSet", says=says, options=options)


def true(column: str, says: str) -> Check:
    """Only True."""
    return one_of(column, [True], says)


def between(column: str, low: float, high: float | None, says: str) -> Check:
    """Values in [low, high]."""
    options = {"column": column, "min_value": low}
    if high is not None:
        options["max_value"] = high
    return Check(name="ExpectColumnValuesToBeBetween", says=says, options=options)


def pattern(column: str, regex: str, says: str) -> Check:
    """Text of one form."""
    options = {"column": column, "regex": regex}
    return Check(name="ExpectColumnValuesToMatchRegex", says=says, options=options)


def same(first: str, second: str, says: str) -> Check:
    """Two columns agree."""
    options = {"column_A": first, "column_B": second}
    return Check(name="ExpectColumnPairValuesToBeEqual", says=says, options=options)


def manifest_tables(manifest: Path, max_quarantined: float) -> list[Table]:
    """Before frames: is the manifest sound?"""
    clips = gate_tables.clip_rows(manifest)
    status = tables.read(manifest / "status.csv", tables.STATUS)
    clip_checks = (
        unique("clip_id", "every clip stands once in the manifest"),
        true("known_label", "every label is a class of classes.csv"),
        true("safe_path", "every path stays below the data set's folder"),
        true("ok_status", "every clip of clips.csv has status ok"),
        between("num_frames", 1, None, "every clip has a frame that decodes"),
        between("width", 1, MAX_SIDE_PX, "widths are those of videos, in px"),
        between("height", 1, MAX_SIDE_PX, "heights are those of videos, in px"),
        between("fps", 0.1, MAX_FPS, "frame rates are those of videos, in 1/s"),
        pattern("sha256", "^[0-9a-f]{64}$", "every clip has its sha256"),
        unique("sha256", "no two clips are the same file", warning=True),
    )
    official_checks = (
        unique_together(("split_id", "clip_id"), "a clip stands once in an official split"),
        one_of("subset", ("train", "test"), "official subsets are train and test"),
        true("has_status", "every listed clip has a status"),
    )
    official = gate_tables.official_rows(manifest)
    return [
        Table(name="clips", frame=clips, key=("clip_id",), checks=clip_checks),
        status_table(status, clips, max_quarantined),
        Table(
            name="official_splits",
            frame=official,
            key=("split_id", "clip_id"),
            checks=official_checks,
        ),
    ]


def status_table(status: pd.DataFrame, clips: pd.DataFrame, max_quarantined: float) -> Table:
    """Every clip has a status, and few are quarantined."""
    share = Check(
        name="ExpectColumnMeanToBeBetween",
        says=f"at most {max_quarantined:g} of the clips found are quarantined",
        options={"column": "quarantined", "max_value": max_quarantined},
        culprits="quarantined",
    )
    checks = (
        unique("clip_id", "every clip has one status"),
        one_of("status", tables.STATUSES, "a status is ok, quarantined or absent"),
        true("agrees", "ok clips stand in clips.csv, and all others say a reason"),
        share,
    )
    frame = gate_tables.status_rows(status, clips)
    return Table(name="status", frame=frame, key=("clip_id", "status", "reason"), checks=checks)


def clips_tables(
    manifest: Path, frames: Path, flow: Path, status: pd.DataFrame, max_quarantined: float
) -> list[Table]:
    """After flow: did every clip end somewhere, and do the packs hold what they should?"""
    clips = gate_tables.clip_rows(manifest)
    checks = (
        one_of("problem", [""], "the packs of every ok clip are there and whole"),
        same("frames", "num_frames", "a frames pack holds the manifest's number of frames"),
        same("fields", "num_fields", "a flow pack holds one field less than frames"),
        true("same_source", "packs were made from the manifest's video (sha256)"),
    )
    packs = gate_tables.pack_rows(clips, status, frames, flow)
    return [
        status_table(status, clips, max_quarantined),
        Table(name="packs", frame=packs, key=("clip_id", "problem"), checks=checks),
    ]


def splits_tables(
    manifest: Path, rows: pd.DataFrame, ids: Sequence[str], max_absent: float
) -> list[Table]:
    """Before training: can a number measured on these splits mean something?"""
    row_checks = (
        unique_together(("split_id", "clip_id"), "a clip stands once in a split"),
        true("known_clip", "every clip stands in the manifest"),
        one_of("subset", tables.SUBSETS, "subsets are train, val and test"),
        true("as_official", "test is the official test set, train and val are its training set"),
    )
    group_checks = (between("num_subsets", 1, 1, "no group is on two sides of a split"),)
    class_checks = (between("train", 1, None, "every class has a training clip"),)
    size_checks = (
        between("train", 1, None, "a split has training clips"),
        between("test", 1, None, "a split has test clips"),
        between("missing_share", 0, max_absent, "a split has the manifest's classes"),
    )
    groups, classes = gate_tables.group_sides(rows), gate_tables.class_sides(rows)
    sizes = gate_tables.sizes(manifest, rows, ids)
    return [
        Table(name="rows", frame=rows, key=("split_id", "clip_id"), checks=row_checks),
        Table(name="groups", frame=groups, key=("split_id", "group"), checks=group_checks),
        Table(name="classes", frame=classes, key=("split_id", "label"), checks=class_checks),
        Table(name="sizes", frame=sizes, key=("split_id",), checks=size_checks),
    ]
