"""What the page shows of the networks over images, read from `results/saliency`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from flowsight.contract import Folders
from flowsight.evaluation.predictions import records
from flowsight.params.config import Params
from flowsight.reporting import formats
from flowsight.reporting.curves import row_charts
from flowsight.systems.saliency.params import SYSTEM, Block


def content(params: Params, folders: Folders) -> dict[str, Any]:
    """Everything its template names.

    Args:
        params: all parameters.
        folders: `results` (`results/saliency`) and `history` (of `<row>-<split>.csv`).
    """
    results, history = folders["results"], folders["history"]
    block = params.system(SYSTEM)
    metrics = json.loads((results / "metrics.json").read_text(encoding="utf-8"))
    names = list(block.rows)
    pictures = _pictures(results)
    return {
        "id": SYSTEM,
        "title": "Salient objects with fewer kernels",
        "images": params.images.name,
        "rows": [_row(name, metrics, block) for name in names],
        "gains": _gains(results),
        "num_test_images": int(metrics["num_test_images"]),
        "confidence": params.system(SYSTEM).evaluate.confidence,
        "per_split": records(_table(results / "per_split.csv")),
        "chart": _picture(results / "curves.png"),
        "paper": _paper(results),
        "pictures": pictures,
        "overlays": pictures,
        "curves": _curves(history, params.images.split_ids, names),
    }


def _row(name: str, metrics: Mapping[str, float], block: Block) -> dict[str, Any]:
    row = block.rows[name]
    found = {k.removeprefix(f"{name}/"): v for k, v in metrics.items() if k.startswith(f"{name}/")}
    if row.start.slim is not None:
        cut = f"plan {row.start.slim.plan}, kernels: {row.start.slim.choice}"
    else:
        cut = "none" if row.start.init is None else f"none, trained on from {row.start.init}"
    return {
        "name": name,
        "network": f"{row.network.backbone}, width {row.network.width}",
        "cut": cut,
        "f_beta_low": None,
        "f_beta_high": None,
        **found,
    }


def _table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"row": str, "split_id": str, "item_id": str},
                       keep_default_na=False)  # fmt: skip


def _gains(results: Path) -> list[dict[str, Any]]:
    rows = []
    for row in records(_table(results / "comparisons.csv")):
        ends = [pd.to_numeric(row[end], errors="coerce") for end in ("low", "high")]
        low, high = (None if pd.isna(end) else float(end) for end in ends)
        beyond = low is not None and high is not None and (low > 0 or high < 0)
        rows.append(row | {"low": low, "high": high, "beyond_chance": beyond})
    return rows


def _picture(path: Path) -> dict[str, Any]:
    width, height = formats.picture_size(path)
    return {"uri": formats.data_uri(path), "width": width, "height": height}


def _pictures(results: Path) -> list[dict[str, Any]]:
    table = _table(results / "pictures" / "index.csv")
    return [row | _picture(results / "pictures" / row["picture"]) for row in records(table)]


def _paper(results: Path) -> dict[str, Any]:
    """Experiments with both printed numbers and ours, and why they may not be compared."""
    table = _table(results / "paper_table.csv")
    table["ours"] = pd.to_numeric(table["ours"], errors="coerce")
    notes: dict[str, int] = {}
    rows = []
    for (number, dataset, item), own in table.groupby(["table", "dataset", "item"], sort=False):
        by_metric = {r["metric"]: r for r in records(own)}
        first = records(table[(table["table"] == number) & (table["metric"] == "detection_time")])
        score = by_metric["f_score"]
        comparable = str(score["comparable"]) == "True"
        rows.append(
            {
                "table": number,
                "dataset": dataset,
                "item": item,
                "time": by_metric["detection_time"]["value"] / first[0]["value"],
                "value": score["value"],
                "ours": None if pd.isna(score["ours"]) else score["ours"],
                "comparable": comparable,
                "note": None if comparable else notes.setdefault(score["why"], len(notes) + 1),
            }
        )
    return {"rows": rows, "notes": list(notes), "any": any(r["comparable"] for r in rows)}


def _curves(history: Path, split_ids: Sequence[str], names: list[str]) -> list[dict[str, Any]]:
    cards = []
    for name in names:
        charts = row_charts(history, name, split_ids, "spatial")
        if charts:
            cards.append({"row": name, "charts": charts})
    return cards
