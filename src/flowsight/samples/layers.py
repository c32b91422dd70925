"""Rigid layers: drawing with antialiasing, and exact masks and flow.

A picture is a background and a list of layers, back to front. A layer is an outline in its own
(local) coordinates and a matrix that puts it on the screen; between two frames only the matrix
changes. So the displacement of every pixel is known exactly, without estimating anything.

Coordinates are pixels, x right, y down; the centre of pixel (row, column) is (x=column, y=row).
Pictures are drawn `OVERSAMPLING` times larger and averaged; labels are sampled at pixel centres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from flowsight.samples import exact
from flowsight.samples.exact import transform

OVERSAMPLING = 3
"""Odd, so that a pixel's centre is the centre of one fine pixel."""

_FRACTION_BITS = 6

Colour = tuple[int, int, int]
Point = Sequence[float] | np.ndarray


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One rigid part as it stands in one frame."""

    name: str
    """The same in every frame of a clip."""
    matrix: np.ndarray
    """(3, 3) float, local coordinates to screen pixels."""
    outline: np.ndarray
    """(N, 2) float, local coordinates, pixels."""
    colour: Colour
    """RGB of the outline's inside."""
    details: tuple[tuple[np.ndarray, Colour], ...] = ()
    """Smaller polygons drawn on it, in local coordinates and inside the outline."""
    grain: float = 0.0
    """Strength of the surface pattern that moves with the layer, as a share of brightness."""
    grain_phase: float = 0.0
    """So that equal parts do not carry equal patterns."""


def affine(angle_rad: float = 0.0, origin: Point = (0.0, 0.0)) -> np.ndarray:
    """Matrix (3, 3) that turns local +y (down) forward (+x) by an angle, then moves it."""
    cos, sin = exact.cos(angle_rad), exact.sin(angle_rad)
    return np.array([[cos, sin, origin[0]], [-sin, cos, origin[1]], [0.0, 0.0, 1.0]])


def draw_polygon(canvas: np.ndarray, points: np.ndarray, colour: Sequence[int] | int) -> None:
    """Fill a polygon, given in screen pixels, on a canvas `OVERSAMPLING` times larger, in place."""
    fine = points * OVERSAMPLING + (OVERSAMPLING - 1) / 2
    fixed = np.rint(fine * (1 << _FRACTION_BITS)).astype(np.int32)
    cv2.fillPoly(canvas, [fixed], colour, lineType=cv2.LINE_8, shift=_FRACTION_BITS)


def enlarge(image: np.ndarray) -> np.ndarray:
    """The canvas to draw on: every pixel repeated, so that shrinking gives the image back."""
    return np.repeat(np.repeat(image, OVERSAMPLING, axis=0), OVERSAMPLING, axis=1)


def shrink(canvas: np.ndarray) -> np.ndarray:
    """Average a canvas down to pixels."""
    size = (canvas.shape[1] // OVERSAMPLING, canvas.shape[0] // OVERSAMPLING)
    return cv2.resize(canvas, size, interpolation=cv2.INTER_AREA)


def composite(background: np.ndarray, layers: Sequence[Layer]) -> tuple[np.ndarray, np.ndarray]:
    """Draw layers over a background.

    Args:
        background: (H, W, 3) uint8 RGB.
        layers: back to front.

    Returns:
        The picture (H, W, 3) uint8, and the labels (H, W) int16: the index of the layer seen at
        each pixel's centre, -1 where the background is seen.
    """
    canvas = enlarge(background)
    labels = np.full(canvas.shape[:2], -1, np.int16)
    for index, layer in enumerate(layers):
        outline = transform(layer.matrix, layer.outline)
        draw_polygon(canvas, outline, layer.colour)
        draw_polygon(labels, outline, index)
        for polygon, colour in layer.details:
            draw_polygon(canvas, transform(layer.matrix, polygon), colour)
    half = OVERSAMPLING // 2
    labels = labels[half::OVERSAMPLING, half::OVERSAMPLING].copy()
    return _add_grain(shrink(canvas), labels, layers), labels


def _add_grain(image: np.ndarray, labels: np.ndarray, layers: Sequence[Layer]) -> np.ndarray:
    """Modulate brightness by a smooth pattern fixed to each layer, so that motion shows inside."""
    shaded = image.astype(np.float32)
    for index, layer in enumerate(layers):
        rows, columns = np.nonzero(labels == index)
        if layer.grain == 0 or not len(rows):
            continue
        pixels = np.stack([columns, rows], axis=1).astype(np.float64)
        x, y = transform(exact.invert(layer.matrix), pixels).T
        phase = layer.grain_phase
        pattern = exact.sin(1.1 * x + 0.5 * y + phase) + exact.sin(0.35 * x - 1.25 * y + 2 * phase)
        shaded[rows, columns] *= (1 + layer.grain / 2 * pattern)[:, None]
    return np.clip(np.rint(shaded), 0, 255).astype(np.uint8)


def exact_flow(
    labels: np.ndarray,
    layers: Sequence[Layer],
    following: Sequence[Layer],
    background_flow: np.ndarray,
) -> np.ndarray:
    """Displacement of the surface seen at every pixel, to the next frame.

    Args:
        labels: (H, W) of this frame, as `composite` returns them.
        layers: of this frame.
        following: the same layers, in the same order, in the next frame.
        background_flow: (2, H, W) float, displacement of the background.

    Returns:
        (2, H, W) float32, pixels per frame, u then v. Defined also where the next frame hides
        the surface.
    """
    flow = background_flow.astype(np.float32)
    for index, (now, then) in enumerate(zip(layers, following, strict=True)):
        rows, columns = np.nonzero(labels == index)
        pixels = np.stack([columns, rows], axis=1).astype(np.float64)
        moved = transform(exact.compose(then.matrix, exact.invert(now.matrix)), pixels)
        flow[:, rows, columns] = (moved - pixels).T
    return flow


def limb(length: float, start: float, end: float) -> np.ndarray:
    """Outline of a tapered limb along local +y, round at both ends; radii at start and end."""
    upper = np.linspace(np.pi, 2 * np.pi, 9)
    lower = np.linspace(0, np.pi, 9)
    top = np.stack([start * exact.cos(upper), start * exact.sin(upper)], axis=1)
    bottom = np.stack([end * exact.cos(lower), length + end * exact.sin(lower)], axis=1)
    return np.concatenate([top, bottom])


def ellipse(centre: Point, radius_x: float, radius_y: float) -> np.ndarray:
    """Outline (28, 2) of an ellipse."""
    angle = np.arange(28) * (2 * np.pi / 28)
    return np.stack(
        [exact.cos(angle) * radius_x, exact.sin(angle) * radius_y], axis=1
    ) + np.asarray(centre)


def rectangle(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    """Outline (4, 2) of a rectangle."""
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float64)
