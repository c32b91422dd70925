"""Figures of the evaluation as PNG files with the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flowsight.evaluation.overlays import Panels
from flowsight.files import atomic_file
from flowsight.metrics.classification import Floats, Ints

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STREAM_COLOURS = {"spatial": "#3b6fd4", "temporal": "#d9722e", "fused": "#18866b"}
_INK, _PAPER, _RULE = "#1d2530", "#ffffff", "#d5dae1"
_DARK, _LIGHT, _RIGHT, _WRONG = "#12151c", "#e9edf3", "#5fd3a8", "#ff8f6b"
_MAX_NAMED_CLASSES = 30
_MAX_COUNTED_CLASSES = 14


def blank_figure(width: float, height: float, colour: str = _PAPER) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, facecolor=colour)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """PNG without the program's version, which would change the bytes."""
    with atomic_file(path) as temporary:
        figure.savefig(
            temporary, format="png", facecolor=figure.get_facecolor(), metadata={"Software": None}
        )


def confusion_figure(matrices: Mapping[str, Ints], classes: Sequence[str], path: Path) -> None:
    """Confusion matrices side by side, shaded by the share of each true class.

    Args:
        matrices: title -> (K, K) counts, rows are true classes.
        classes: K names.
        path: PNG to write.
    """
    figure = blank_figure(4.2 * len(matrices) + 1.0, 5.8)
    axes = figure.subplots(1, len(matrices), squeeze=False)[0]
    for number, (ax, (title, counts)) in enumerate(zip(axes, matrices.items(), strict=True)):
        _draw_confusion(ax, counts, classes, named_rows=number == 0)
        ax.set_title(title, fontsize=11, color=_INK, loc="left", pad=10)
    axes[0].set_ylabel("true class", color=_INK)
    figure.tight_layout()
    save_figure(figure, path)


def _draw_confusion(ax: Axes, counts: Ints, classes: Sequence[str], *, named_rows: bool) -> None:
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(classes)) if len(classes) <= _MAX_NAMED_CLASSES else []
    names = list(classes) if ticks else []
    ax.set_xticks(ticks, names, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    ax.set_yticks(ticks, names if named_rows else [""] * len(names), fontsize=8)
    ax.set_xlabel("predicted class", color=_INK)
    ax.tick_params(length=0, colors=_INK)
    for spine in ax.spines.values():
        spine.set_color(_RULE)
    if len(classes) > _MAX_COUNTED_CLASSES:
        return
    for i, j in zip(*np.nonzero(counts), strict=True):
        colour = _PAPER if share[i, j] > 0.55 else _INK
        ax.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=8, color=colour)


def accuracy_figure(metrics: Mapping[str, float], fusions: Sequence[str], path: Path) -> None:
    """Top-1 accuracy of every stream with its interval, grouped by fusion.

    Args:
        metrics: flat names `<fusion>/<stream>/top1[_low|_high]`.
        fusions: in the order shown.
        path: PNG to write.
    """
    figure = blank_figure(6.4, 1.1 + 0.95 * len(fusions))
    ax = figure.subplots()
    place, ticks, names = 0.0, [], []
    for fusion in fusions:
        for stream, colour in STREAM_COLOURS.items():
            key = f"{fusion}/{stream}/top1"
            value = 100 * metrics[key]
            low, high = (100 * metrics.get(f"{key}_{end}", metrics[key]) for end in ("low", "high"))
            ax.plot([low, high], [place, place], color=colour, lw=4, alpha=0.3, clip_on=False)
            ax.plot([value], [place], "o", color=colour, ms=8, clip_on=False)
            ax.text(103, place, f"{value:.1f} %", va="center", fontsize=9, color=_INK)
            ticks.append(place)
            names.append(f"{fusion} · {stream}")
            place += 1
        place += 0.6
    ax.set_yticks(ticks, names, fontsize=9)
    ax.set_xlim(0, 100)
    ax.invert_yaxis()
    ax.set_xlabel("top-1 accuracy, %", fontsize=9, color=_INK)
    ax.grid(axis="x", color=_RULE, lw=0.6)
    ax.tick_params(length=0, colors=_INK)
    for spine in ax.spines.values():
        spine.set_visible(False)
    figure.tight_layout()
    save_figure(figure, path)


def overlay_figure(panels: Panels, *, label: str, predicted: str, prob: float, path: Path) -> None:
    """Four panels under a line with the true class, the prediction and its probability."""
    height, width = panels.frame.shape[:2]
    # in px at 100 dpi: two columns, two rows, a heading, and a strip of text over each row
    gap, head, strip = 8, 54, 32
    total = (2 * width + 3 * gap, head + 2 * (strip + height) + gap)
    figure = blank_figure(total[0] / 100, total[1] / 100, _DARK)
    right = label == predicted
    top, mark = 1 - head / 2 / total[1], "✓" if right else "✗"
    figure.text(gap / total[0], top, label, color=_LIGHT, size=17, weight="bold", va="center")
    verdict, colour = f"{mark} {predicted}  {100 * prob:.0f} %", _RIGHT if right else _WRONG
    figure.text(1 - gap / total[0], top, verdict, color=colour, size=16, va="center", ha="right")
    cells: list[tuple[str, Floats | np.ndarray]] = [
        ("RGB frame", panels.frame),
        ("RGB + temporal attention T", panels.frame_attended),
        ("optical flow", panels.flow),
        ("flow + spatial attention S", panels.flow_attended),
    ]
    for number, (title, image) in enumerate(cells):
        row, column = divmod(number, 2)
        left = gap + column * (width + gap)
        y = head + row * (strip + height) + strip
        figure.text(left / total[0], 1 - (y - strip / 2) / total[1], title, color="#aab4c2",
                    fontsize=13, va="center")  # fmt: skip
        box = (left / total[0], 1 - (y + height) / total[1], width / total[0], height / total[1])
        ax = figure.add_axes(box)
        ax.imshow(image, aspect="auto", interpolation="nearest")
        ax.set_axis_off()
    save_figure(figure, path)


def region_figure(picture: np.ndarray, *, heading: str, agreement: str, path: Path) -> None:
    """A frame with its outlines under a line of text.

    Args:
        picture: (H, W, 3) uint8 RGB.
        heading: true class and, where it is another, the predicted one.
        agreement: of the two outlines, in words.
        path: PNG to write.
    """
    height, width = picture.shape[:2]
    strip = 48
    figure = blank_figure(width / 100, (height + strip) / 100, _DARK)
    for line, (text, colour, size) in enumerate(
        ((heading, _LIGHT, 11), (agreement, "#aab4c2", 10))
    ):
        y = 1 - (13 + 22 * line) / (height + strip)
        figure.text(8 / width, y, text, color=colour, size=size, va="center")
    ax = figure.add_axes((0, 0, 1, height / (height + strip)))
    ax.imshow(picture, aspect="auto", interpolation="nearest")
    ax.set_axis_off()
    save_figure(figure, path)


def bar_figure(
    bars: Mapping[str, Mapping[str, float]], colours: Mapping[str, str], path: Path
) -> None:
    """Accuracy as bars, side by side for each method, as in the paper's figure 7.

    Args:
        bars: method -> series -> accuracy in %; a series may be missing.
        colours: series -> colour, in the order of the legend.
        path: PNG to write.
    """
    figure = blank_figure(1.5 + 1.25 * len(bars), 3.8)
    ax = figure.subplots()
    width = 0.8 / len(colours)
    for number, (series, colour) in enumerate(colours.items()):
        places = [i for i, values in enumerate(bars.values()) if series in values]
        heights = [values[series] for values in bars.values() if series in values]
        at = [place + (number - (len(colours) - 1) / 2) * width for place in places]
        ax.bar(at, heights, width * 0.92, color=colour, label=series)
        for x, height in zip(at, heights, strict=True):
            ax.text(x, height + 1, f"{height:.1f}", ha="center", fontsize=7, color=_INK)
    names = [name.replace(" ", "\n") for name in bars]
    ax.set_xticks(range(len(bars)), names, fontsize=8)
    ax.set_ylim(0, 108)
    ax.set_ylabel("accuracy, %", fontsize=9, color=_INK)
    ax.grid(axis="y", color=_RULE, lw=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(length=0, colors=_INK)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.legend(fontsize=8, frameon=False, ncols=len(colours), loc="upper left",
              bbox_to_anchor=(0, 1.12))  # fmt: skip
    figure.tight_layout()
    save_figure(figure, path)
