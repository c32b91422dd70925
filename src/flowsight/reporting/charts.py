"""Small charts as inline SVG text: no ids, no clocks, colours by CSS class (light and dark)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

_MAX_NAMED_CLASSES = 24
_MAX_COUNTED_CLASSES = 14
_LETTER_PX = 5.6  # mean width of a letter at the charts' font size


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve."""

    x: Sequence[float]
    y: Sequence[float]
    """Same length; not-a-number leaves a gap."""
    style: str
    """CSS classes."""
    name: str


def line_chart(
    lines: Sequence[Line], *, title: str, unit: str = "", top: float | None = None
) -> str:
    """Curves over epochs.

    Args:
        lines: at least one, drawn in order.
        title: two or three words.
        unit: written after the values of the axis.
        top: upper end of the axis; None takes it from the data. The lower end is 0.

    Returns:
        An `<svg>` element, 280 x 170 units, that scales with its box.
    """
    left, right, upper, lower = 34.0, 274.0, 24.0, 148.0
    values = np.concatenate([np.asarray(line.y, dtype=np.float64) for line in lines])
    values = values[np.isfinite(values)]
    highest = top if top is not None else nice_ceiling(float(values.max(initial=1e-9)))
    first = min(min(line.x) for line in lines)
    last = max(max(line.x) for line in lines)
    width = max(last - first, 1e-9)

    def place(x: float, y: float) -> str:
        across = left + (x - first) / width * (right - left)
        return f"{across:.1f},{lower - min(max(y / highest, 0), 1) * (lower - upper):.1f}"

    parts = [_open(280, 170, title), f'<text class="t" x="{left}" y="13">{escape(title)}</text>']
    for share in (0.0, 0.5, 1.0):
        y = lower - share * (lower - upper)
        parts.append(f'<line class="g" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        label = f"{share * highest:g}{unit}"
        parts.append(
            f'<text class="a" x="{left - 5}" y="{y + 3:.1f}" text-anchor="end">{label}</text>'
        )
    for x, anchor in ((first, "start"), (last, "end")):
        across = left if anchor == "start" else right
        parts.append(f'<text class="a" x="{across}" y="163" text-anchor="{anchor}">{x:g}</text>')
    middle = (left + right) / 2
    parts.append(f'<text class="a" x="{middle}" y="163" text-anchor="middle">epoch</text>')
    for line in lines:
        points = [place(x, y) for x, y in zip(line.x, line.y, strict=True) if np.isfinite(y)]
        if not points:
            continue
        # one epoch is a dot: a line of one point would be invisible
        path = points if len(points) > 1 else [points[0], points[0]]
        name = f"<title>{escape(line.name)}</title>"
        parts.append(f'<polyline class="{line.style}" points="{" ".join(path)}">{name}</polyline>')
    return "".join([*parts, "</svg>"])


def nice_ceiling(value: float) -> float:
    """The next number of the form 1, 2, 2.5 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= value * (1 - 1e-9)))


def confusion_chart(counts: Counts, classes: Sequence[str], *, title: str, style: str) -> str:
    """A confusion matrix; a cell's strength is its share of the true class.

    Args:
        counts: (K, K), rows are true classes.
        classes: K names; left out where there are too many to read.
        title: read out by screen readers.
        style: CSS class that colours the cells.

    Returns:
        An `<svg>` element that scales with its box; each cell tells its counts on hover.
    """
    size = len(classes)
    named = size <= _MAX_NAMED_CLASSES
    cell = max(240 / size, 1.5)
    margin = max(len(name) for name in classes) * _LETTER_PX + 8 if named else 14.0
    side = size * cell
    parts = [_open(margin + side + 2, margin + side + 2, title)]
    corner, extent = f'x="{margin:.1f}" y="{margin:.1f}"', f'width="{side:.1f}" height="{side:.1f}"'
    parts.append(f'<rect class="f" {corner} {extent}/>')
    if named:
        parts += _confusion_names(classes, margin, cell)
    else:
        parts.append(f'<text class="a" x="{margin}" y="10">predicted</text>')
        parts.append(
            f'<text class="a" transform="translate(10 {margin + 40}) rotate(-90)">true</text>'
        )
    totals = np.maximum(counts.sum(axis=1), 1)
    for i, j in zip(*np.nonzero(counts), strict=True):
        share = counts[i, j] / totals[i]
        x, y = margin + j * cell, margin + i * cell
        hint = f"{classes[i]}: {counts[i, j]} of {totals[i]} called {classes[j]}"
        parts.append(
            f'<rect class="{style}" x="{x:.1f}" y="{y:.1f}" width="{cell:.1f}" height="{cell:.1f}" '
            f'fill-opacity="{0.08 + 0.92 * share:.3f}"><title>{escape(hint)}</title></rect>'
        )
        if size <= _MAX_COUNTED_CLASSES:
            contrast = "n inv" if share > 0.55 else "n"
            parts.append(
                f'<text class="{contrast}" x="{x + cell / 2:.1f}" y="{y + cell / 2 + 3.5:.1f}" '
                f'text-anchor="middle">{counts[i, j]}</text>'
            )
    return "".join([*parts, "</svg>"])


def _confusion_names(classes: Sequence[str], margin: float, cell: float) -> list[str]:
    parts = []
    for k, name in enumerate(classes):
        middle = margin + (k + 0.5) * cell
        text = escape(name)
        edge, base = f"{margin - 5:.1f}", f"{middle + 3:.1f}"
        parts.append(f'<text class="a" x="{edge}" y="{base}" text-anchor="end">{text}</text>')
        turned = f"translate({base} {edge}) rotate(-90)"
        parts.append(f'<text class="a" transform="{turned}">{text}</text>')
    return parts


def _open(width: float, height: float, title: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}">'
    )
