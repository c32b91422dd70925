"""What the page shows of the networks over clips, read from `results/residual3d`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from flowsight.classifiers import localization
from flowsight.contract import Folders
from flowsight.evaluation.predictions import read_classes, read_table, records
from flowsight.params.config import Params
from flowsight.reporting import formats
from flowsight.reporting.curves import row_charts
from flowsight.systems.residual3d.params import SYSTEM


def content(params: Params, folders: Folders) -> dict[str, Any]:
    """Everything its template names.

    Args:
        params: all parameters.
        folders: `results` (`results/residual3d`), `history` (of `<row>-<split>.csv`),
            `manifest`.
    """
    results, history = folders["results"], folders["history"]
    metrics = json.loads((results / "metrics.json").read_text(encoding="utf-8"))
    classes = read_classes(folders["manifest"])
    names = list(params.system(SYSTEM).rows)
    regions = _regions(results)
    return {
        "id": SYSTEM,
        "title": "3D residual attention networks",
        "rows": [_row(name, metrics, params) for name in names],
        "gains": _gains(results),
        "chance": 1 / len(classes),
        "num_classes": len(classes),
        "num_test_clips": int(metrics["num_test_clips"]),
        "confidence": params.system(SYSTEM).evaluate.confidence,
        "guard": json.loads((results / "leakage.json").read_text(encoding="utf-8")),
        "per_split": records(read_table(results / "per_split.csv", ("row", "split_id", "top1"))),
        "chart": _picture(results / "accuracy.png"),
        "paper": _paper(results),
        "localization": [m for name in names if (m := _measures(name, metrics)) is not None],
        "masks": localization.masks_of(results),
        "regions": regions,
        "overlays": regions,
        "curves": _curves(history, params, names),
    }


def _row(name: str, metrics: Mapping[str, float], params: Params) -> dict[str, Any]:
    row = params.system(SYSTEM).rows[name]
    switches = row.network.attention
    kinds = [] if switches is None else [
        word for word, on in (("channel", switches.channel), ("spatial", switches.spatial)) if on
    ]  # fmt: skip
    keys = ("top1", "clip_top1", "top5", "mean_class")
    ends = dict.fromkeys(("top1_low", "top1_high", "top1_std", "clip_top1_std"))
    found = {k.removeprefix(f"{name}/"): v for k, v in metrics.items() if k.startswith(f"{name}/")}
    return {
        "name": name,
        "backbone": row.network.backbone,
        "attention": " + ".join(kinds) or "none",
        "input": f"{row.input.clip_length} x {row.input.crop_px} px, {row.input.modality}",
        **ends,
        **{key: found[key] for key in keys},
        **{key: found[key] for key in ends if key in found},
    }


def _gains(results: Path) -> list[dict[str, Any]]:
    table = read_table(results / "comparisons.csv", ("row", "baseline", "difference"))
    rows = []
    for row in records(table):
        ends = [pd.to_numeric(row[end], errors="coerce") for end in ("low", "high")]
        low, high = (None if pd.isna(end) else float(end) for end in ends)
        beyond = low is not None and high is not None and (low > 0 or high < 0)
        rows.append(row | {"low": low, "high": high, "beyond_chance": beyond})
    return rows


def _measures(name: str, metrics: Mapping[str, float]) -> dict[str, Any] | None:
    keys = ("pointing_game", "energy_in_mask", "iou", "chance")
    if f"localization/{name}/chance" not in metrics:
        return None
    return {"row": name} | {key: metrics[f"localization/{name}/{key}"] for key in keys}


def _picture(path: Path) -> dict[str, Any]:
    width, height = formats.picture_size(path)
    return {"uri": formats.data_uri(path), "width": width, "height": height}


def _regions(results: Path) -> list[dict[str, Any]]:
    table = read_table(results / "regions" / "index.csv", ("picture", "clip_id", "frame"))
    return [row | _picture(results / "regions" / row["picture"]) for row in records(table)]


def _paper(results: Path) -> dict[str, Any]:
    """Rows with the number of their footnote, the footnotes, and whether any may be compared."""
    table = read_table(results / "paper_table.csv", ("value", "ours", "comparable", "why"))
    table["ours"] = pd.to_numeric(table["ours"], errors="coerce")
    notes: dict[str, int] = {}
    rows = []
    for row in records(table):
        comparable = str(row["comparable"]) == "True"
        note = None if comparable else notes.setdefault(row["why"], len(notes) + 1)
        ours = None if pd.isna(row["ours"]) else row["ours"]
        rows.append(row | {"comparable": comparable, "note": note, "ours": ours})
    return {"rows": rows, "notes": list(notes), "any": any(r["comparable"] for r in rows)}


def _curves(history: Path, params: Params, names: list[str]) -> list[dict[str, Any]]:
    cards = []
    for name in names:
        stream = (
            "spatial" if params.system(SYSTEM).rows[name].input.modality == "rgb" else "temporal"
        )
        charts = row_charts(history, name, params.splits.ids, stream)
        if charts:
            cards.append({"row": name, "stream": stream, "charts": charts})
    return cards
