"""Textured backgrounds, wider than the frame, so that they can move behind the figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from flowsight.samples.layers import Colour, draw_polygon, ellipse, rectangle, shrink

HORIZON = 0.62
"""Where wall and floor meet, as a share of the frame's height."""

_LIGHT = 172.0
"""Mean brightness of every background, so that groups do not differ by exposure."""


@dataclass(frozen=True, kw_only=True)
class Background:
    """A place, and how it moves."""

    image: np.ndarray
    """(H, W + 2 * margin, 3) uint8 RGB."""
    margin: int
    motion: str
    """`still`, `pan` (all of it moves) or `drift` (only what is above the horizon moves)."""


def value_noise(shape: tuple[int, int], cell: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise (H, W) float32 in [-1, 1] whose blobs are about `cell` pixels wide."""
    rows, columns = (int(np.ceil(size / cell)) + 3 for size in shape)
    coarse = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
    size = (int(columns * cell), int(rows * cell))
    fine = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    return np.clip(fine[: shape[0], : shape[1]], -1, 1)


def texture(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Noise of several sizes, (H, W) float32 in [-1, 1]."""
    weights = {24.0: 0.4, 9.0: 0.3, 4.0: 0.3}
    noise = np.zeros(shape, np.float32)
    for cell, share in weights.items():
        noise += share * value_noise(shape, cell, rng)
    return noise


def _canvas(shape: tuple[int, int], top: Colour, bottom: Colour) -> np.ndarray:
    """A vertical gradient on a fine canvas for a frame of this shape."""
    share = np.linspace(0, 1, shape[0] * 3, dtype=np.float32)[:, None, None]
    column = (1 - share) * np.array(top, np.float32) + share * np.array(bottom, np.float32)
    return np.ascontiguousarray(np.repeat(np.rint(column).astype(np.uint8), shape[1] * 3, axis=1))


def _floor(canvas: np.ndarray, y: float, colour: Colour, line: Colour) -> None:
    """Floor boards in perspective."""
    height, width = canvas.shape[0] / 3, canvas.shape[1] / 3
    draw_polygon(canvas, rectangle(-1, y, width + 1, height + 1), colour)
    middle = width / 2
    for offset in np.arange(-12, 13) * width / 14:
        top, bottom = middle + 0.5 * offset, middle + 1.3 * offset
        edge = [(top, y), (top + 0.5, y), (bottom + 1, height), (bottom, height)]
        draw_polygon(canvas, np.array(edge), line)
    for share in (0.12, 0.34, 0.68):
        at = y + share * (height - y)
        draw_polygon(canvas, rectangle(-1, at, width + 1, at + 0.5), line)


def _room(canvas: np.ndarray, y: float, rng: np.random.Generator) -> None:
    """Wallpaper, framed pictures, a skirting board, a wooden floor."""
    width = canvas.shape[1] / 3
    for x in np.arange(0, width, 9):
        draw_polygon(canvas, rectangle(x, 0, x + 3.5, y), (176, 190, 186))
    for x in np.arange(rng.uniform(4, 30), width, 52):
        top, wide, high = rng.uniform(10, 20), rng.uniform(18, 28), rng.uniform(16, 24)
        draw_polygon(canvas, rectangle(x, top, x + wide, top + high), (104, 88, 70))
        left, right, foot = x + 2, x + wide - 2, top + high - 2
        draw_polygon(canvas, rectangle(left, top + 2, right, foot), (206, 214, 206))
        hill = np.array([(left, foot), (x + wide / 2, top + 6), (right, foot)])
        draw_polygon(canvas, hill, (110, 146, 138))
    _floor(canvas, y, (150, 132, 110), (126, 110, 90))
    draw_polygon(canvas, rectangle(-1, y - 4, width + 1, y), (222, 220, 212))


def _brick(canvas: np.ndarray, y: float, rng: np.random.Generator) -> None:
    """A wall of pale bricks above paving stones."""
    width = canvas.shape[1] / 3
    for row, top in enumerate(np.arange(0, y, 7)):
        for x in np.arange(-14 + 7 * (row % 2), width, 14):
            tone = int(rng.integers(-14, 15))
            colour = (168 + tone, 158 + tone, 148 + tone)
            draw_polygon(canvas, rectangle(x, top, x + 13, min(top + 6.2, y)), colour)
    _floor(canvas, y, (128, 128, 130), (104, 104, 108))


def _park(canvas: np.ndarray, y: float, rng: np.random.Generator) -> None:
    """Sky, hills, trees and grass."""
    width, height = canvas.shape[1] / 3, canvas.shape[0] / 3
    for x in np.arange(0, width, 30):
        hill = ellipse((x + rng.uniform(0, 20), y), rng.uniform(24, 44), 22)
        draw_polygon(canvas, hill, (122, 156, 128))
    for x in np.arange(rng.uniform(0, 14), width, 23):
        top = y - rng.uniform(22, 34)
        draw_polygon(canvas, rectangle(x - 1.6, top, x + 1.6, y + 1), (104, 92, 76))
        for _ in range(4):
            at = (x + rng.uniform(-6, 6), top + rng.uniform(-8, 6))
            tone = int(rng.integers(-12, 13))
            leaves = ellipse(at, rng.uniform(6, 10), rng.uniform(6, 9))
            draw_polygon(canvas, leaves, (82 + tone, 128 + tone, 84 + tone))
    draw_polygon(canvas, rectangle(-1, y, width + 1, height + 1), (124, 158, 98))
    for _ in range(int(width)):
        x, at = rng.uniform(0, width), rng.uniform(y + 1, height)
        blade = np.array([(x, at), (x + 1.2, at), (x + 0.8, at - 3)])
        draw_polygon(canvas, blade, (96, 134, 76))


def _gym(canvas: np.ndarray, y: float, rng: np.random.Generator) -> None:
    """Wall panels, windows and a marked floor."""
    width, height = canvas.shape[1] / 3, canvas.shape[0] / 3
    for x in np.arange(rng.uniform(-20, 0), width, 26):
        draw_polygon(canvas, rectangle(x, 6, x + 18, 26), (200, 218, 228))
        draw_polygon(canvas, rectangle(x + 8.5, 6, x + 9.5, 26), (120, 130, 138))
        draw_polygon(canvas, rectangle(x - 4, 32, x - 3, y), (126, 138, 148))
    for level in np.arange(38, y - 2, 8):
        draw_polygon(canvas, rectangle(-1, level, width + 1, level + 1.4), (128, 140, 150))
    draw_polygon(canvas, rectangle(-1, y, width + 1, height + 1), (178, 164, 134))
    for share, tone in ((0.25, (226, 226, 220)), (0.7, (92, 124, 150))):
        at = y + share * (height - y)
        draw_polygon(canvas, rectangle(-1, at, width + 1, at + 1.6), tone)
    for x in np.arange(rng.uniform(0, 20), width, 38):
        line = np.array([(x, y), (x + 1.2, y), (x + 13.6, height), (x + 12, height)])
        draw_polygon(canvas, line, (160, 146, 116))


def _city(canvas: np.ndarray, y: float, rng: np.random.Generator) -> None:
    """House fronts with windows, and a pavement."""
    width = canvas.shape[1] / 3
    x = -rng.uniform(0, 20)
    while x < width:
        wide, top = rng.uniform(30, 46), rng.uniform(2, 20)
        tone = rng.integers(-18, 19, 3)
        front = tuple(int(value) for value in np.array((158, 160, 166)) + tone)
        draw_polygon(canvas, rectangle(x, top, x + wide, y), front)
        for left in np.arange(x + 4, x + wide - 7, 9):
            for level in np.arange(top + 5, y - 10, 12):
                draw_polygon(canvas, rectangle(left, level, left + 5, level + 7), (92, 110, 128))
        x += wide + 1
    _floor(canvas, y, (150, 150, 146), (120, 120, 118))


def _hall(canvas: np.ndarray, y: float, rng: np.random.Generator) -> None:
    """A tiled wall with arches and a chequered floor."""
    width, height = canvas.shape[1] / 3, canvas.shape[0] / 3
    for x in np.arange(rng.uniform(-20, 0), width, 34):
        draw_polygon(canvas, ellipse((x + 12, 24), 11, 14), (142, 150, 172))
        draw_polygon(canvas, rectangle(x + 1, 24, x + 23, y), (142, 150, 172))
        draw_polygon(canvas, rectangle(x + 26, 8, x + 31, y), (208, 200, 184))
    steps = np.linspace(0, 1, 5)
    rows = steps * np.sqrt(steps) * (height - y) + y
    for row in range(4):
        for column in range(-2, int(width / 12) + 2):
            tone = (176, 170, 158) if (row + column) % 2 else (140, 136, 130)
            x = column * 12.0
            draw_polygon(canvas, rectangle(x, rows[row], x + 12, rows[row + 1] + 1), tone)


_Painter = Callable[[np.ndarray, float, np.random.Generator], None]
_PLACES: tuple[tuple[_Painter, Colour, Colour], ...] = (
    (_room, (190, 204, 200), (178, 190, 186)),
    (_brick, (128, 122, 116), (128, 122, 116)),
    (_park, (172, 202, 226), (214, 226, 230)),
    (_gym, (156, 168, 178), (146, 158, 168)),
    (_city, (184, 204, 222), (214, 220, 224)),
    (_hall, (190, 184, 172), (180, 174, 162)),
)
_MOTIONS = ("still", "pan", "still", "drift", "pan", "still")


def draw_background(
    number: int, shape: tuple[int, int], rng: np.random.Generator, margin: int
) -> Background:
    """The background of a group: places and motions cycle with its number.

    Args:
        number: of the group, from 0.
        shape: (H, W) of the frame.
        rng: for details and texture.
        margin: pixels kept on both sides for motion.
    """
    wide = (shape[0], shape[1] + 2 * margin)
    paint, top, bottom = _PLACES[number % len(_PLACES)]
    canvas = _canvas(wide, top, bottom)
    paint(canvas, HORIZON * shape[0], rng)
    bright = 1 + 0.09 * texture(wide, rng) + 0.05 * value_noise(wide, 60, rng)
    tint = rng.uniform(0.95, 1.05, 3)
    image = _haze(shrink(canvas).astype(np.float32) * bright[:, :, None] * tint)
    return Background(image=image, margin=margin, motion=_MOTIONS[number % len(_MOTIONS)])


def _haze(image: np.ndarray) -> np.ndarray:
    """Soften contrast and colour, so that the figure stands out as it does in depth of field."""
    mean = image.mean(axis=(0, 1))
    pale = _LIGHT + 0.35 * (mean - mean.mean()) + 0.72 * (image - mean)
    grey = pale.mean(axis=2, keepdims=True)
    return np.clip(np.rint(grey + 0.75 * (pale - grey)), 0, 255).astype(np.uint8)


def view(background: Background, shift: float, width: int) -> np.ndarray:
    """The frame's part of a background moved right by `shift` pixels, (H, width, 3) uint8."""
    image, margin = background.image, background.margin
    height = image.shape[0]
    still = image[:, margin : margin + width]
    if background.motion == "still" or shift == 0:
        return still.copy()
    matrix = np.array([[1, 0, shift - margin], [0, 1, 0]], np.float64)
    moved = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)
    if background.motion == "drift":
        floor = round(HORIZON * height)
        moved[floor:] = still[floor:]
    return moved


def flow_of(background: Background, step: float, shape: tuple[int, int]) -> np.ndarray:
    """Displacement (2, H, W) float32 of a background whose shift grows by `step`."""
    flow = np.zeros((2, *shape), np.float32)
    if background.motion == "pan":
        flow[0] = step
    if background.motion == "drift":
        flow[0, : round(HORIZON * shape[0])] = step
    return flow
