"""Curves and pictures of saliency maps as PNG files with the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from flowsight.datasets.images.pairs import Image, Pair, read_image, read_mask
from flowsight.evaluation.figures import blank_figure, save_figure
from flowsight.files import write_csv
from flowsight.metrics.classification import Floats
from flowsight.progress import track
from flowsight.systems.saliency.maps import maps_of

COLUMNS = ("picture", "item_id", "rows")
COLOURS = ("#1d2530", "#18866b", "#3b6fd4", "#d9722e", "#8b5fbf", "#c2415b", "#7a8699", "#b8962e")
_INK, _RULE = "#1d2530", "#d5dae1"
_HEIGHT_PX, _GAP_PX, _HEAD_PX = 150, 8, 24
_PER_LINE = 8


def curve_figure(curves: Mapping[str, Floats], path: Path) -> None:
    """Precision against recall, and F against the threshold.

    Args:
        curves: row -> (3, 256) precision, recall, F.
        path: PNG to write.
    """
    figure = blank_figure(9.6, 4.2)
    left, right = figure.subplots(1, 2)
    for number, (name, (precision, recall, f_beta)) in enumerate(curves.items()):
        style = {"color": COLOURS[number % len(COLOURS)], "lw": 1.6, "label": name}
        style["ls"] = "-" if number < len(COLOURS) else "--"
        left.plot(recall, precision, **style)
        right.plot(np.arange(len(f_beta)), f_beta, **style)
    left.set_xlabel("recall", color=_INK)
    left.set_ylabel("precision", color=_INK)
    right.set_xlabel("threshold", color=_INK)
    right.set_ylabel("F (beta² = 0.3)", color=_INK)
    for ax in (left, right):
        ax.set_ylim(0, 1.02)
        ax.grid(color=_RULE, lw=0.6)
        ax.tick_params(length=0, colors=_INK, labelsize=8)
        for spine in ax.spines.values():
            spine.set_visible(False)
    left.set_xlim(0, 1.02)
    right.legend(frameon=False, fontsize=8, ncols=1 + len(curves) // 7)
    figure.tight_layout()
    save_figure(figure, path)


def write_pictures(pairs: Sequence[Pair], maps: Mapping[str, Path], out: Path) -> None:
    """Strips like the paper's figure 4: image, mask, then each row's map.

    Args:
        pairs: which images.
        maps: row -> pack of maps.
        out: folder for the PNG files and `index.csv` (`COLUMNS`).
    """
    index = []
    for pair in track(pairs, "pictures"):
        panels = {"image": read_image(pair.image, upright=pair.upright)}
        panels["mask"] = _as_rgb(255 * read_mask(pair.mask).astype(np.uint8))
        for name, path in maps.items():
            panels[name] = _as_rgb(next(levels for _, levels in maps_of(path, [pair])))
        _strip(panels, out / f"{pair.item_id}.png")
        index.append((f"{pair.item_id}.png", pair.item_id, " ".join(maps)))
    write_csv(pd.DataFrame(index, columns=list(COLUMNS)), out / "index.csv")


def _as_rgb(levels: npt.NDArray[np.uint8]) -> Image:
    return np.repeat(levels[:, :, None], 3, axis=2)


def _strip(panels: Mapping[str, Image], path: Path) -> None:
    """Panels under their names, side by side, in as few lines as hold them all."""
    height, width = next(iter(panels.values())).shape[:2]
    across = max(40, round(_HEIGHT_PX * width / height))
    line = _HEAD_PX + _HEIGHT_PX
    per_line = min(len(panels), _PER_LINE)
    num_lines = -(-len(panels) // per_line)
    total = per_line * across + (per_line + 1) * _GAP_PX
    tall = num_lines * line + _GAP_PX
    figure = blank_figure(total / 100, tall / 100)
    for number, (name, panel) in enumerate(panels.items()):
        down, place = divmod(number, per_line)
        small = cv2.resize(panel, (across, _HEIGHT_PX), interpolation=cv2.INTER_AREA)
        x, y = _GAP_PX + place * (across + _GAP_PX), tall - (down + 1) * line
        ax = figure.add_axes((x / total, y / tall, across / total, _HEIGHT_PX / tall))
        ax.imshow(small, interpolation="nearest")
        ax.set_axis_off()
        heading = 1 - (down * line + 0.65 * _HEAD_PX) / tall
        figure.text(x / total, heading, name, fontsize=8, color=_INK, va="center")
    save_figure(figure, path)
