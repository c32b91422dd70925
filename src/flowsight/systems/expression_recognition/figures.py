"""Figures of the evaluation: what is taken for what, and faces that are right and wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd

from flowsight.contract import Folders
from flowsight.datasets.images.labelled import load_labelled
from flowsight.datasets.images.pairs import read_image
from flowsight.evaluation.figures import blank_figure, confusion_figure, save_figure
from flowsight.evaluation.predictions import read_classes, records
from flowsight.systems.expression_recognition.params import SYSTEM, Block

if TYPE_CHECKING:
    from flowsight.params.config import Params

CONFUSION, FACES = "confusion.png", "faces.png"
MAX_MATRICES = 3
_SIDE_PX, _TEXT_PX, _PER_LINE = 96, 34, 8
_RIGHT, _WRONG, _INK = "#18866b", "#c2415b", "#1d2530"


def write(params: Params, folders: Folders, results: Path) -> None:
    """Write `confusion.png` and `faces.png`, the same bytes for the same numbers.

    Args:
        params: all parameters.
        folders: `items` and `raw`.
        results: folder with the evaluation's `predictions.parquet`, to write into.
    """
    block = params.system(SYSTEM)
    table = pd.read_parquet(results / "predictions.parquet")
    classes = read_classes(folders["items"])
    names = shown_rows(block)
    confusion_figure({n: counts_of(table, n, classes) for n in names}, classes, results / CONFUSION)
    split_id = block.data.split_ids[0]
    items, _ = load_labelled(folders["raw"], folders["items"], split_id)
    paths = {item.item_id: item.image for item in items}
    mine = table[(table["row"] == block.served_row) & (table["split_id"] == split_id)]
    _faces(chosen(mine, block.evaluate.num_pictures), paths, results / FACES)


def shown_rows(block: Block) -> list[str]:
    """Rows whose confusions are drawn: the served one, then the others, few enough to read."""
    names = [block.served_row, *(name for name in block.rows if name != block.served_row)]
    return names[:MAX_MATRICES]


def counts_of(table: pd.DataFrame, row: str, classes: list[str]) -> np.ndarray:
    """(K, K) counts of a row's test pictures, all splits together."""
    mine = table[table["row"] == row]
    crossed = pd.crosstab(mine["label"], mine["predicted"])
    return crossed.reindex(index=classes, columns=classes, fill_value=0).to_numpy(np.int64)


def chosen(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """Faces to show: half of them right, half wrong where there are, evenly spread by name."""
    table = table.sort_values("item_id")
    wrong, right = table[table["hit"] < 1], table[table["hit"] == 1]
    num_wrong = min(len(wrong), count // 2)
    return pd.concat([_spread(right, count - num_wrong), _spread(wrong, num_wrong)])


def _spread(table: pd.DataFrame, count: int) -> pd.DataFrame:
    places = np.unique(np.linspace(0, len(table) - 1, min(count, len(table))).round().astype(int))
    return table.iloc[places if count else []]


def _faces(table: pd.DataFrame, paths: Mapping[str, Path], path: Path) -> None:
    """Each face over what it shows and, in red where that is another, what was found."""
    cell, line = _SIDE_PX + 12, _SIDE_PX + _TEXT_PX + 8
    num_lines = max(1, -(-len(table) // _PER_LINE))
    width, height = cell * _PER_LINE + 12, line * num_lines + 8
    figure = blank_figure(width / 100, height / 100)
    for number, row in enumerate(records(table)):
        down, across = divmod(number, _PER_LINE)
        x, y = 12 + across * cell, 8 + down * line
        image = cv2.resize(read_image(paths[row["item_id"]]), (_SIDE_PX, _SIDE_PX),
                           interpolation=cv2.INTER_NEAREST_EXACT)  # fmt: skip
        ax = figure.add_axes((x / width, 1 - (y + _SIDE_PX) / height, _SIDE_PX / width,
                              _SIDE_PX / height))  # fmt: skip
        ax.imshow(image, interpolation="nearest")
        ax.set_axis_off()
        for place, (text, colour) in enumerate(_captions(row)):
            at = 1 - (y + _SIDE_PX + 9 + 14 * place) / height
            figure.text(x / width, at, text, fontsize=7, color=colour, va="center")
    save_figure(figure, path)


def _captions(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    best = 100 * row[f"prob_{row['predicted']}"]
    found = (f"{row['predicted']} {best:.0f} %", _RIGHT if row["hit"] == 1 else _WRONG)
    return [(row["label"], _INK), found]
