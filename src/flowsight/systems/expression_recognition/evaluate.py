"""The evaluation: accuracy and macro F1 of each row, with and without faces that were trained on.

Accuracy is what papers print; macro F1 and each class's recall stand beside it, for the classes are
unequal. FER2013 holds pictures that stand in training and test alike: every number is told over all
test pictures, and accuracy once more without those whose bytes train.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from flowsight.contract import Folders
from flowsight.datasets.images.labelled import Labelled, load_labelled
from flowsight.errors import InputError
from flowsight.files import atomic_dir, write_csv, write_json
from flowsight.metrics import bootstrap, classification
from flowsight.metrics.bootstrap import Hits, Resampling
from flowsight.metrics.classification import Floats, Ints
from flowsight.systems.expression_recognition import figures, paper
from flowsight.systems.expression_recognition.params import SYSTEM, Block

if TYPE_CHECKING:
    from flowsight.params.config import Params

COSTS = ("num_parameters", "multiply_adds", "num_crops")
METRICS = ("accuracy", "macro_f1", "mean_class", "accuracy_without_duplicates", "log_loss")
_DECIMALS = 6


@dataclass(frozen=True, kw_only=True, eq=False)
class RowResult:
    """One row on one split's test pictures, by item id. N items, K classes."""

    row: str
    split_id: str
    items: list[Labelled]
    probs: Floats
    """(N, K)."""
    cost: dict[str, int]

    @property
    def labels(self) -> Ints:
        """(N,) true classes."""
        return np.array([item.label for item in self.items], np.int64)

    @property
    def predicted(self) -> Ints:
        """(N,) best classes."""
        return classification.predicted_classes(self.probs)

    @property
    def hits(self) -> Floats:
        """(N,) 1 where right."""
        return (self.labels == self.predicted).astype(np.float64)

    @property
    def fresh(self) -> np.ndarray:
        """(N,) bool: the picture's bytes do not train."""
        return np.array([not item.duplicate_of for item in self.items], bool)


def evaluate(params: Params, folders: Folders, out: Path) -> None:
    """Write metrics.json, tables, joined predictions and pictures.

    Args:
        params: all parameters; every row of the block is evaluated.
        folders: `predictions` (of `<row>-<split>/predictions.parquet` and `meta.json`), `items` and
            `raw`.
        out: folder to replace.

    Raises:
        InputError: predictions that are missing or of other pictures or classes than the splits'.
    """
    block = params.system(SYSTEM)
    results, classes = read_results(block, folders)
    resampling = Resampling(
        num_samples=block.evaluate.bootstrap_samples,
        confidence=block.evaluate.confidence,
        seed=params.seed,
    )
    table = split_table(results)
    status = pd.read_csv(folders["items"] / "status.csv", dtype=str, keep_default_na=False)
    metrics = flat_metrics(table, results, classes, resampling)
    metrics |= {
        "num_test_images": len({i.item_id for r in results for i in r.items}),
        "num_duplicates": len({i.item_id for r in results for i in r.items if i.duplicate_of}),
        "num_quarantined": int((status["status"] == "quarantined").sum()),
    }
    rounded = {k: v if isinstance(v, int) else round(v, _DECIMALS) for k, v in metrics.items()}
    gains = comparisons(results, block, resampling)
    joined = joined_items(results, classes)
    with atomic_dir(out) as folder:
        write_json(rounded, folder / "metrics.json")
        write_csv(table.round(_DECIMALS), folder / "per_split.csv")
        write_csv(gains.round(_DECIMALS), folder / "comparisons.csv")
        write_csv(confusion_pairs(results, classes).round(_DECIMALS), folder / "confusions.csv")
        write_csv(paper.paper_table(table, params, status), folder / "paper_table.csv")
        joined.to_parquet(folder / "predictions.parquet", index=False, compression="zstd")
        figures.write(params, folders, folder)


def read_results(block: Block, folders: Folders) -> tuple[list[RowResult], list[str]]:
    """Every row on every split, and the class names."""
    results: list[RowResult] = []
    classes: list[str] = []
    for split_id in block.data.split_ids:
        items, classes = load_labelled(folders["raw"], folders["items"], split_id)
        for name in block.rows:
            folder = folders["predictions"] / f"{name}-{split_id}"
            results.append(_read(name, split_id, folder, items, classes))
    return results, classes


def _read(
    name: str, split_id: str, folder: Path, items: list[Labelled], classes: list[str]
) -> RowResult:
    path = folder / "predictions.parquet"
    if not path.is_file():
        raise InputError(
            f"expected predictions in {path}, found no such file; run `dvc repro` for its stage"
        )
    table = pd.read_parquet(path)
    expected = ["item_id", "subset", "label", *(f"logit_{name}" for name in classes)]
    if list(table.columns) != expected:
        raise InputError(
            f"expected the columns {', '.join(expected)} in {path}, got "
            f"{', '.join(table.columns)}; predict again"
        )
    wanted = {i.item_id: (i.subset, classes[i.label]) for i in items if i.subset != "train"}
    pairs = zip(table["subset"], table["label"], strict=True)
    found = dict(zip(table["item_id"], pairs, strict=True))
    different = sorted(i for i in wanted.keys() | found.keys() if wanted.get(i) != found.get(i))
    if different or len(found) != len(table):
        raise InputError(
            f"expected predictions of the {len(wanted)} val and test pictures of the split, got "
            f"{len(table)} that differ in {', '.join(different[:3]) or 'repeated ones'} in {path}; "
            "run `dvc repro` to predict again"
        )
    test = sorted((i for i in items if i.subset == "test"), key=lambda item: item.item_id)
    own_rows = table.set_index("item_id").loc[[item.item_id for item in test]]
    logits = own_rows[[f"logit_{name}" for name in classes]].to_numpy(np.float64)
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    return RowResult(
        row=name,
        split_id=split_id,
        items=test,
        probs=classification.softmax(logits),
        cost={key: int(meta[key]) for key in COSTS},
    )


def split_table(results: list[RowResult]) -> pd.DataFrame:
    """Per row and split: row, split_id, num_images, num_duplicates, `METRICS`, `COSTS`."""
    rows = []
    for r in results:
        num_classes = r.probs.shape[1]
        rows.append(
            {
                "row": r.row,
                "split_id": r.split_id,
                "num_images": len(r.items),
                "num_duplicates": int((~r.fresh).sum()),
                "accuracy": r.hits.mean(),
                "macro_f1": classification.macro_f1(r.labels, r.predicted, num_classes),
                "mean_class": classification.mean_class_accuracy(
                    r.labels, r.predicted, num_classes
                ),
                "accuracy_without_duplicates": (
                    r.hits[r.fresh].mean() if r.fresh.any() else np.nan
                ),
                "log_loss": classification.log_loss(r.probs, r.labels),
                **r.cost,
            }
        )
    return pd.DataFrame(rows)


def flat_metrics(
    table: pd.DataFrame, results: list[RowResult], classes: list[str], resampling: Resampling
) -> dict[str, Any]:
    """Means over splits as flat names: `<row>/<metric>`, `_std`, intervals, recalls, costs."""
    metrics: dict[str, Any] = {}
    for name, rows in table.groupby("row", sort=False):
        mine = [r for r in results if r.row == name]
        for metric in METRICS:
            if rows[metric].notna().all():
                metrics[f"{name}/{metric}"] = float(rows[metric].mean())
            if len(rows) > 1 and rows[metric].notna().all():
                metrics[f"{name}/{metric}_std"] = float(rows[metric].std(ddof=1))
        for cost in COSTS:
            metrics[f"{name}/{cost}"] = int(rows[cost].iloc[0])
        ends = bootstrap.interval(_hits(mine, [r.hits for r in mine], results), resampling)
        if ends:
            metrics[f"{name}/accuracy_low"], metrics[f"{name}/accuracy_high"] = ends
        recalls = np.stack(
            [classification.class_recalls(r.labels, r.predicted, len(classes)) for r in mine]
        )
        for label, recall in zip(classes, recalls.mean(axis=0), strict=True):
            if np.isfinite(recall):  # a class may have no test pictures
                metrics[f"{name}/recall/{label}"] = float(recall)
    return metrics


def comparisons(results: list[RowResult], block: Block, resampling: Resampling) -> pd.DataFrame:
    """Each row against the first and against the one it goes on from, picture by picture.

    Returns:
        Columns row, base, difference, low, high (of accuracy; paired).
    """
    first = next(iter(block.rows))
    rows = []
    for name, row in block.rows.items():
        for base in dict.fromkeys(b for b in (row.start.init, first) if b and b != name):
            mine, other = ([r for r in results if r.row == n] for n in (name, base))
            gains = [a.hits - b.hits for a, b in zip(mine, other, strict=True)]
            ends = bootstrap.interval(_hits(mine, gains, results), resampling)
            low, high = ends or (np.nan, np.nan)
            difference = float(np.mean([gain.mean() for gain in gains]))
            rows.append((name, base, difference, low, high))
    return pd.DataFrame(rows, columns=["row", "base", "difference", "low", "high"])


def _hits(mine: list[RowResult], values: list[Floats], results: list[RowResult]) -> list[Hits]:
    names = sorted({item.item_id for r in results for item in r.items})
    index = {item: i for i, item in enumerate(names)}
    return [
        Hits(items=np.array([index[i.item_id] for i in r.items], np.int64), values=value)
        for r, value in zip(mine, values, strict=True)
    ]


def confusion_pairs(results: list[RowResult], classes: list[str]) -> pd.DataFrame:
    """What is taken for what, over all splits: row, label, predicted, count, share of the label."""
    rows = []
    for name in dict.fromkeys(r.row for r in results):
        counts = sum_confusion([r for r in results if r.row == name], len(classes))
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        for i, j in zip(*np.nonzero(counts), strict=True):
            rows.append((name, classes[i], classes[j], int(counts[i, j]), shares[i, j]))
    return pd.DataFrame(rows, columns=["row", "label", "predicted", "count", "share"])


def sum_confusion(results: list[RowResult], num_classes: int) -> Ints:
    """(K, K) counts of all splits together."""
    tables = [classification.confusion_matrix(r.labels, r.predicted, num_classes) for r in results]
    return np.sum(tables, axis=0)


def joined_items(results: list[RowResult], classes: list[str]) -> pd.DataFrame:
    """Every row, split and test picture: label, predicted, hit, duplicate_of, prob_<class>."""
    parts = []
    for r in results:
        table = pd.DataFrame(
            {
                "row": r.row,
                "split_id": r.split_id,
                "item_id": [item.item_id for item in r.items],
                "subset": "test",
                "label": [classes[k] for k in r.labels],
                "predicted": [classes[k] for k in r.predicted],
                "hit": r.hits,
                "duplicate_of": [item.duplicate_of for item in r.items],
            }
        )
        for k, name in enumerate(classes):
            table[f"prob_{name}"] = r.probs[:, k]
        parts.append(table)
    return pd.concat(parts, ignore_index=True)
