"""Predictions as the predict stages write them, read and checked against manifest and splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from flowsight.errors import InputError
from flowsight.metrics import classification
from flowsight.metrics.classification import Floats, Ints

FILE = "predictions.parquet"
SUBSETS = ("val", "test")
_LOGIT = "logit_"


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """One row's probabilities for the validation and test clips of one split, by clip id."""

    clip_ids: npt.NDArray[np.str_]
    """(N,) sorted."""
    subsets: npt.NDArray[np.str_]
    """(N,) `val` or `test`."""
    labels: Ints
    """(N,) class indices."""
    probs: Floats
    """(N, K)."""


def read_classes(manifest: Path) -> list[str]:
    """Class names in index order.

    Raises:
        InputError: no such table.
    """
    table = read_table(manifest / "classes.csv", ("index", "label"))
    return table.sort_values("index")["label"].astype(str).tolist()


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV that must have these columns; text stays text.

    Raises:
        InputError: no such file, or a column is missing.
    """
    if not path.is_file():
        raise InputError(f"expected a table in {path}, found no such file; run `dvc repro`")
    names = dict.fromkeys(("clip_id", "label", "group", "subset", "split_id", "masks"), str)
    table = pd.read_csv(path, dtype=names, keep_default_na=False)
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise InputError(
            f"expected columns {', '.join(columns)} in {path}, got {', '.join(table.columns)}"
        )
    return table


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table as mappings from column name to value."""
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]


def read_scores(folder: Path, classes: Sequence[str], extra: Sequence[str] = ()) -> Scores:
    """A row's logits of one split.

    Args:
        folder: `predictions/<system>/X/<row>-<split>`, with `predictions.parquet`.
        classes: names in the order of `classes.csv`.
        extra: names of numbers that stand behind the logits.

    Raises:
        InputError: missing file, other columns, repeated clips, unknown labels, bad numbers.
    """
    path = folder / FILE
    if not path.is_file():
        raise InputError(
            f"expected predictions in {path}, found no such file; run `dvc repro` for its stage"
        )
    table = pd.read_parquet(path)
    expected = ["clip_id", "subset", "label", *(_LOGIT + name for name in classes), *extra]
    if list(table.columns) != expected:
        raise InputError(
            f"expected the columns clip_id, subset, label and {len(classes)} logits in the order "
            f"of classes.csv, got {', '.join(table.columns[:6])}, ... in {path}; predict again"
        )
    table = table.sort_values("clip_id", kind="stable")
    _check_rows(table, classes, path)
    index = {name: i for i, name in enumerate(classes)}
    return Scores(
        clip_ids=table["clip_id"].to_numpy(dtype=np.str_),
        subsets=table["subset"].to_numpy(dtype=np.str_),
        labels=np.array([index[name] for name in table["label"]], dtype=np.int64),
        probs=classification.softmax(
            table[expected[3 : 3 + len(classes)]].to_numpy(dtype=np.float64)
        ),
    )


def _check_rows(table: pd.DataFrame, classes: Sequence[str], path: Path) -> None:
    repeated = table["clip_id"][table["clip_id"].duplicated()]
    if len(repeated):
        raise InputError(f"expected each clip once, got {_few(repeated)} repeated in {path}")
    unknown = set(table["label"]) - set(classes)
    if unknown:
        raise InputError(f"expected labels of classes.csv, got {_few(sorted(unknown))} in {path}")
    logits = table.iloc[:, 3:].to_numpy(dtype=np.float64)
    bad = table["clip_id"][~np.isfinite(logits).all(axis=1)]
    if len(bad):
        raise InputError(
            f"expected finite logits, got NaN or infinity for {_few(bad)} in {path}; "
            "the training diverged: lower its learning rate"
        )


def check_split(
    scores: Scores, split: Path, labels: dict[str, str], classes: Sequence[str]
) -> None:
    """Refuse predictions made for other clips, subsets or labels than the split has now.

    Args:
        scores: predictions of one row.
        split: `data/splits/X/<split_id>.csv`.
        labels: clip id -> class name, from the manifest.
        classes: class names by index.

    Raises:
        InputError: with the first few clips that differ.
    """
    table = read_table(split, ("clip_id", "subset"))
    table = table[table["subset"].isin(SUBSETS)]
    expected = dict(zip(table["clip_id"], table["subset"], strict=True))
    found = dict(zip(scores.clip_ids.tolist(), scores.subsets.tolist(), strict=True))
    different = sorted(
        clip for clip in expected.keys() | found.keys() if expected.get(clip) != found.get(clip)
    )
    if different:
        raise InputError(
            f"expected predictions of the {len(expected)} val and test clips of {split}, got "
            f"{len(found)} clips that differ in {_few(different)}; run `dvc repro` to predict again"
        )
    names = [classes[label] for label in scores.labels]
    wrong = [c for c, name in zip(scores.clip_ids, names, strict=True) if labels.get(c) != name]
    if wrong:
        raise InputError(f"expected the manifest's labels, got others for {_few(wrong)}")


def check_joined(first: Scores, second: Scores, names: tuple[str, str]) -> None:
    """Two streams are fused clip by clip: they must have the same clips.

    Raises:
        InputError: with the first few clips that only one of them has.
    """
    different = np.setxor1d(first.clip_ids, second.clip_ids)
    if len(different):
        raise InputError(
            f"expected the same clips in the predictions of {names[0]} and {names[1]}, "
            f"got {_few(different)} in one only; run `dvc repro` to predict again"
        )


def _few(items: Sequence[str] | pd.Series | npt.NDArray[np.str_], count: int = 3) -> str:
    listed = [str(item) for item in items]
    more = f" and {len(listed) - count} more" if len(listed) > count else ""
    return ", ".join(listed[:count]) + more
