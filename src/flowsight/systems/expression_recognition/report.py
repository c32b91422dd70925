"""What the page shows of expression recognition, read from its results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from flowsight.contract import Folders
from flowsight.evaluation.predictions import records
from flowsight.reporting import formats
from flowsight.reporting.curves import row_charts
from flowsight.systems.expression_recognition.figures import CONFUSION, FACES
from flowsight.systems.expression_recognition.params import SYSTEM, Block

if TYPE_CHECKING:
    from flowsight.params.config import Params

MAX_PAIRS = 6
"""Confusions told in words."""


def content(params: Params, folders: Folders) -> dict[str, Any]:
    """Everything its template names.

    Args:
        params: all parameters.
        folders: `results` (`results/expression_recognition`) and `history` (of
            `<row>-<split>.csv`).
    """
    results, history = folders["results"], folders["history"]
    block = params.system(SYSTEM)
    metrics = json.loads((results / "metrics.json").read_text(encoding="utf-8"))
    names = list(block.rows)
    return {
        "id": SYSTEM,
        "overlays": [],
        "title": "Which expression a face shows",
        "data": block.data.name,
        "rows": [_row(name, metrics, block) for name in names],
        "gains": _gains(results),
        "served": block.served_row,
        "num_test_images": int(metrics["num_test_images"]),
        "num_duplicates": int(metrics["num_duplicates"]),
        "confidence": block.evaluate.confidence,
        "recalls": _recalls(metrics, names),
        "pairs": _pairs(results, block.served_row),
        "per_split": records(_table(results / "per_split.csv")),
        "confusion": _picture(results / CONFUSION),
        "faces": _picture(results / FACES) if block.evaluate.num_pictures else None,
        "paper": _paper(results),
        "curves": _curves(history, block, names),
    }


def _row(name: str, metrics: Mapping[str, float], block: Block) -> dict[str, Any]:
    row = block.rows[name]
    found = {k.removeprefix(f"{name}/"): v for k, v in metrics.items() if k.startswith(f"{name}/")}
    frozen = ", convolutions frozen" if row.start.frozen else ""
    begun = f"from row {row.start.init}" if row.start.init else f"{row.start.weights} weights"
    scratch = row.start.init is None and row.start.weights is None
    empty = ("accuracy_low", "accuracy_high", "accuracy_without_duplicates")
    return {
        "name": name,
        "network": row.network.backbone,
        "start": "from scratch" if scratch else begun + frozen,
        **dict.fromkeys(empty),
        **found,
    }


def _table(path: Path) -> pd.DataFrame:
    text = dict.fromkeys(("row", "split_id", "item_id", "table", "split"), str)
    return pd.read_csv(path, dtype=text, keep_default_na=False)


def _gains(results: Path) -> list[dict[str, Any]]:
    rows = []
    for row in records(_table(results / "comparisons.csv")):
        ends = [pd.to_numeric(row[end], errors="coerce") for end in ("low", "high")]
        low, high = (None if pd.isna(end) else float(end) for end in ends)
        beyond = low is not None and high is not None and (low > 0 or high < 0)
        rows.append(row | {"low": low, "high": high, "beyond_chance": beyond})
    return rows


def _recalls(metrics: Mapping[str, float], names: list[str]) -> dict[str, Any]:
    """Share of each class that is found, by row."""
    keys = [key.split("/")[2] for key in metrics if "/recall/" in key]
    classes = list(dict.fromkeys(keys))
    rows = [
        {"name": name, "values": [metrics.get(f"{name}/recall/{c}") for c in classes]}
        for name in names
    ]
    return {"classes": classes, "rows": rows}


def _pairs(results: Path, row: str) -> list[dict[str, Any]]:
    """What the served row takes most often for something else."""
    table = _table(results / "confusions.csv")
    table = table[(table["row"] == row) & (table["label"] != table["predicted"])]
    return records(table.sort_values(["count", "label"], ascending=[False, True]).head(MAX_PAIRS))


def _picture(path: Path) -> dict[str, Any]:
    width, height = formats.picture_size(path)
    return {"uri": formats.data_uri(path), "width": width, "height": height}


def _paper(results: Path) -> dict[str, Any]:
    table = _table(results / "paper_table.csv")
    table["ours"] = pd.to_numeric(table["ours"], errors="coerce")
    notes: dict[str, int] = {}
    rows = []
    for row in records(table):
        comparable = str(row["comparable"]) == "True"
        rows.append(
            row
            | {
                "ours": None if pd.isna(row["ours"]) else row["ours"],
                "comparable": comparable,
                "note": None if comparable else notes.setdefault(row["why"], len(notes) + 1),
            }
        )
    return {"rows": rows, "notes": list(notes), "any": any(row["comparable"] for row in rows)}


def _curves(history: Path, block: Block, names: list[str]) -> list[dict[str, Any]]:
    cards = []
    for name in names:
        charts = row_charts(history, name, block.data.split_ids, "spatial")
        if charts:
            cards.append({"row": name, "charts": charts})
    return cards
