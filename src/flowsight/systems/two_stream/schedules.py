"""The thesis's figure 4.1: what a stream reaches over its epochs, two-phase and in turns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from flowsight.classifiers.params import RowParams
from flowsight.params.config import Params
from flowsight.reporting.charts import Line, line_chart
from flowsight.systems.two_stream.evaluate import system_fusions
from flowsight.systems.two_stream.params import SYSTEM

_QUANTITIES = (("accuracy", "accuracy", 100, 100.0, " %"), ("loss", "loss", 1, None, ""))


def content(history: Path, params: Params) -> list[dict[str, Any]]:
    """A card per stream that was trained both ways; none where only one way was gone.

    Args:
        history: folder of `<row>-<split>.csv`.
        params: all parameters; the headline's rows stand for two phases.
    """
    headline = system_fusions(params).get(params.system(SYSTEM).evaluate.headline or "")
    if headline is None:
        return []
    cards = []
    for phased in (headline.spatial, headline.temporal):
        row = params.row(phased)
        turns = [
            n for n, other in params.system(SYSTEM).rows.items() if _is_same_stream(other, row)
        ]
        turns = [n for n in turns if in_turns(n, params)]
        if row.start.init is None or not turns:
            continue
        curves = {
            "two phases": _mean(history, [row.start.init, phased], params),
            "in turns": _mean(history, [turns[0]], params),
        }
        if not any(table.empty for table in curves.values()):
            stream = "spatial" if row.input.modality == "rgb" else "temporal"
            cards.append({"stream": stream, "charts": _charts(curves, stream)})
    return cards


def in_turns(name: str, params: Params) -> bool:
    """Whether a row and the one whose maps it sees are trained in turn (`alternation`)."""
    row = params.row(name)
    return (
        row.start.init is None
        and row.start.maps in params.system(SYSTEM).rows
        and params.row(row.start.maps).start.maps == name
    )


def _is_same_stream(one: RowParams, other: RowParams) -> bool:
    return one.input.modality == other.input.modality


def _mean(history: Path, rows: list[str], params: Params) -> pd.DataFrame:
    """Mean over the splits; the epochs of several rows one after the other."""
    parts, before = [], 0
    for name in rows:
        paths = [history / f"{name}-{split}.csv" for split in params.splits.ids]
        tables = [pd.read_csv(path) for path in paths if path.is_file()]
        if not tables:
            return pd.DataFrame()
        mean = pd.concat(tables).groupby("epoch", as_index=False).mean()
        mean["epoch"] += before
        before = int(mean["epoch"].max())
        parts.append(mean)
    return pd.concat(parts, ignore_index=True)


def _charts(curves: dict[str, pd.DataFrame], stream: str) -> list[Markup]:
    charts = []
    for name, title, scale, top, unit in _QUANTITIES:
        subset = "val" if all(f"val_{name}" in table for table in curves.values()) else "train"
        lines = [
            Line(
                x=table["epoch"].tolist(),
                y=(scale * table[f"{subset}_{name}"]).tolist(),
                style=f"l {stream}" + (" turns" if way == "in turns" else ""),
                name=way,
            )
            for way, table in curves.items()
        ]
        charts.append(Markup(line_chart(lines, title=f"{title} ({subset})", top=top, unit=unit)))
    return charts
