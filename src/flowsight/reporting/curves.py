"""Loss and accuracy over the epochs of a row, as the page draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from flowsight.reporting.charts import Line, line_chart

_QUANTITIES = (
    ("accuracy", "accuracy", 100, 100.0, " %"),
    ("loss", "loss (cross entropy)", 1, None, ""),
)


def row_charts(history: Path, row: str, split_ids: Sequence[str], stream: str) -> list[Markup]:
    """Charts of a row, one pair of lines (training, validation) per split.

    Args:
        history: folder of `<row>-<split>.csv`.
        row: name of the row.
        split_ids: its splits.
        stream: `spatial` or `temporal`, for the colour.

    Returns:
        One chart a quantity; none where no split has a history.
    """
    paths = {s: history / f"{row}-{s}.csv" for s in split_ids}
    tables = {s: t for s, p in paths.items() if p.is_file() and len(t := pd.read_csv(p))}
    if not tables:
        return []
    return [
        Markup(line_chart(_lines(tables, f"{{}}_{quantity}", stream, scale), title=title, top=top,
                          unit=unit))
        for quantity, title, scale, top, unit in _QUANTITIES
    ]  # fmt: skip


def _lines(
    tables: Mapping[str, pd.DataFrame], column: str, stream: str, scale: float
) -> list[Line]:
    many = " many" if len(tables) > 1 else ""
    return [
        Line(
            x=table["epoch"].tolist(),
            y=(scale * pd.to_numeric(table[column.format(subset)], errors="coerce")).tolist(),
            style=f"l {subset} {stream}{many}",
            name=f"split {split_id}, {subset}",
        )
        for subset in ("train", "val")
        for split_id, table in tables.items()
        if column.format(subset) in table
    ]
