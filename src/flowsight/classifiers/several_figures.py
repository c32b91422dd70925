"""Several runs in one figure: accuracies, and paired differences around zero."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from flowsight.evaluation.figures import STREAM_COLOURS, blank_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _RULE, _PLAIN = "#1d2530", "#d5dae1", "#6b4fa0"


def runs_figure(
    accuracies: pd.DataFrame, differences: pd.DataFrame, runs: Sequence[str], path: Path
) -> None:
    """Means with their intervals as dots on bars, single runs as small marks.

    Args:
        accuracies: as `several_runs.accuracies` gives them.
        differences: as `several_runs.differences` gives them; none: accuracies alone.
        runs: names of the runs, columns of both.
        path: PNG to write; the same bytes for the same numbers.
    """
    panels = [("top-1 accuracy, %", accuracies, accuracies["method"], "mean")]
    if len(differences):
        names = differences["method"] + " − " + differences["baseline"].map(_short)
        panels.append(("difference on the same clips, points", differences, names, "difference"))
    height = 1.1 + 0.3 * max(len(table) for _, table, _, _ in panels)
    figure = blank_figure(6.2 * len(panels), height)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, table, names, value) in zip(axes, panels, strict=True):
        _draw(ax, table, list(names), value, list(runs))
        ax.set_xlabel(title, fontsize=9, color=_INK)
    if len(differences):
        axes[1].axvline(0, color=_INK, lw=1)
    figure.tight_layout()
    save_figure(figure, path)


def _short(method: str) -> str:
    """The fusion's name; the stream stands in the method that it is compared with."""
    return method.partition("/")[0]


def _draw(ax: Axes, table: pd.DataFrame, names: list[str], value: str, runs: list[str]) -> None:
    for place, (_, row) in enumerate(table.iterrows()):
        colour = STREAM_COLOURS.get(str(row["method"]).rpartition("/")[2], _PLAIN)
        if not np.isnan(row["low"]):
            ends = [100 * row["low"], 100 * row["high"]]
            ax.plot(ends, [place, place], color=colour, lw=5, alpha=0.3, clip_on=False,
                    solid_capstyle="butt")  # fmt: skip
        single = 100 * row[runs].to_numpy(dtype=np.float64)
        ax.plot(single, np.full(len(runs), place), "|", color=colour, ms=9, clip_on=False)
        ax.plot([100 * row[value]], [place], "o", color=colour, ms=7, clip_on=False)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="x", color=_RULE, lw=0.6)
    ax.tick_params(length=0, colors=_INK, labelsize=8)
    for spine in ax.spines.values():
        spine.set_visible(False)
