"""What the page shows of background subtraction, read from `results/background`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from flowsight.contract import Folders
from flowsight.evaluation import published
from flowsight.evaluation.predictions import read_table, records
from flowsight.params.config import Params
from flowsight.reporting import formats
from flowsight.reporting.charts import Line, line_chart
from flowsight.systems.background.evaluate import short_name
from flowsight.systems.background.paper import PAPER
from flowsight.systems.background.params import SYSTEM

_MEASURES = ("f_measure", "recall", "precision")
_COLUMNS = ("method", "split_id", "video_id", "seen", "part", *_MEASURES)


def content(params: Params, folders: Folders) -> dict[str, Any]:
    """Everything its template names.

    Args:
        params: all parameters.
        folders: `results` (`results/background`) and `history` (of `<row>-<split>.csv`).
    """
    results, history = folders["results"], folders["history"]
    block = params.system(SYSTEM)
    table = read_table(results / "per_video.csv", _COLUMNS)
    for name in _MEASURES:
        table[name] = pd.to_numeric(table[name], errors="coerce")
    return {
        "id": SYSTEM,
        "title": "Background subtraction",
        "name": params.scenes.name,
        "videos": [_video(video, table, list(block.rows)) for video in params.scenes.videos],
        "pictures": _pictures(results / "pictures"),
        "paper": _paper(results),
        "overlays": [],
        "curves": _curves(history, params),
    }


def _video(video_id: str, table: pd.DataFrame, rows: list[str]) -> dict[str, Any]:
    """One line a method: printed ones first, then ours, then OpenCV's."""
    own = table[table["video_id"] == video_id]
    everywhere = own[own["part"] == "all"].set_index(["method", "split_id"])["f_measure"]
    lines = _printed(video_id)
    for row in records(own[own["part"] == "second_half"]):
        is_row = row["method"] in rows
        # a CSV's truth values come as such, or as text where the column holds other things
        seen = str(row["seen"]) == "True"
        kind = "peer" if not is_row else "seen" if seen else "unseen"
        lines.append(
            {name: _number(row[name]) for name in _MEASURES}
            | {
                "method": row["method"],
                "kind": kind,
                "trained_on": row["split_id"],
                "f_all": _number(everywhere[row["method"], row["split_id"]]),
            }
        )
    order = {"printed": 0, "seen": 1, "unseen": 2, "peer": 3}
    lines.sort(key=lambda line: (order[line["kind"]], -(line["f_measure"] or 0)))
    best = {k: max((x["f_measure"] or 0 for x in lines if x["kind"] == k), default=None)
            for k in order}  # fmt: skip
    return {"id": video_id, "name": short_name(video_id), "lines": lines, "best": best}


def _printed(video_id: str) -> list[dict[str, Any]]:
    if not video_id.startswith("baseline/"):
        return []
    table = published.read(PAPER)
    own = table[table["item"] == short_name(video_id)]
    return [
        {str(r["metric"]): float(r["value"]) for r in records(part)}
        | {"method": str(method), "kind": "printed", "trained_on": "", "f_all": None}
        for method, part in own.groupby("method", sort=False)
    ]


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def _pictures(folder: Path) -> list[dict[str, Any]]:
    table = read_table(folder / "index.csv", ("picture", "video_id", "frame", "panels"))
    return [
        row
        | {"uri": formats.data_uri(folder / row["picture"])}
        | dict(zip(("width", "height"), formats.picture_size(folder / row["picture"]), strict=True))
        | {"panels": str(row["panels"]).split(" | ")}
        for row in records(table)
    ]


def _paper(results: Path) -> dict[str, Any]:
    """Rows with the number of their footnote, and the footnotes."""
    table = read_table(results / "paper_table.csv", ("value", "ours", "comparable", "why"))
    table["ours"] = pd.to_numeric(table["ours"], errors="coerce")
    notes: dict[str, int] = {}
    rows = [
        row | {"note": notes.setdefault(row["why"], len(notes) + 1), "ours": _number(row["ours"])}
        for row in records(table)
    ]
    return {"rows": rows, "notes": list(notes)}


def _curves(history: Path, params: Params) -> list[dict[str, Any]]:
    """Training loss and F-measure of each row, a line a split."""
    block, cards = params.system(SYSTEM), []
    for name in block.rows:
        paths = {s: history / f"{name}-{s}.csv" for s in params.scenes.splits}
        tables = {s: pd.read_csv(path) for s, path in paths.items() if path.is_file()}
        if tables:
            cards.append({"row": name, "charts": [
                _chart(tables, "train_loss", "loss (cross entropy)", 1.0, None, ""),
                _chart(tables, "train_f", "F-measure", 100.0, 100.0, " %"),
            ]})  # fmt: skip
    return cards


def _chart(
    tables: dict[str, pd.DataFrame],
    column: str,
    title: str,
    scale: float,
    top: float | None,
    unit: str,
) -> Markup:
    lines = [
        Line(
            x=table["epoch"].tolist(),
            y=(scale * table[column]).tolist(),
            style="l train fused",
            name=f"{split_id}, train",
        )
        for split_id, table in tables.items()
    ]
    return Markup(line_chart(lines, title=title, top=top, unit=unit))
