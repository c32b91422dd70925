"""Image and mask pairs for salient-object detection, in MSRA10K's layout."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from flowsight.progress import track
from flowsight.samples import exact
from flowsight.samples.background import texture, value_noise
from flowsight.samples.layers import Colour, affine, draw_polygon, ellipse, enlarge, shrink
from flowsight.video.formats import write_image

_IMAGE = 5
_FIRST_ID = 100001


def render(out: Path, *, seed: int, num_images: int, shape: tuple[int, int]) -> None:
    """Write `Imgs/<id>.jpg` (RGB) and `Imgs/<id>.png` (grey, 0 or 255) into an existing folder.

    Args:
        out: an existing folder.
        seed: everything follows from it.
        num_images: pairs.
        shape: (H, W).
    """
    for index in track(range(num_images), "rendering images"):
        rng = np.random.default_rng([seed, _IMAGE, index])
        image, mask = render_pair(rng, shape, index)
        stem = out / "Imgs" / str(_FIRST_ID + index)
        write_image(stem.with_suffix(".jpg"), image)
        write_image(stem.with_suffix(".png"), np.where(mask, 255, 0).astype(np.uint8))


def render_pair(
    rng: np.random.Generator, shape: tuple[int, int], number: int
) -> tuple[np.ndarray, np.ndarray]:
    """One picture and its salient objects; every fifth picture has two of them.

    Args:
        rng: for everything but the kind of object.
        shape: (H, W).
        number: kinds of objects cycle with it.

    Returns:
        Picture (H, W, 3) uint8 RGB, mask (H, W) bool.
    """
    hue = rng.uniform(0, 180)
    image = _clutter(rng, shape, hue)
    mask = np.zeros(shape, bool)
    count = 2 if number % 5 == 4 else 1
    for index in range(count):
        size = rng.uniform(0.2, 0.32) * min(shape) * (0.72 if count == 2 else 1)
        side = (0.3, 0.7)[index] if count == 2 else 0.5
        centre = np.array([side, 0.5]) * shape[::-1] + rng.uniform(-0.1, 0.1, 2) * shape[::-1]
        outline = _OUTLINES[(number + index) % len(_OUTLINES)](rng)
        turn = rng.uniform(-0.6, 0.6)
        turned = exact.transform(affine(-turn), outline)
        image, seen = _place(image, rng, turned * size + centre, hue + 90)
        mask |= seen
    noisy = image + rng.normal(0, 2.5, image.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8), mask


def _colour(hue: float, saturation: float, value: float) -> Colour:
    """RGB of a hue in [0, 180), saturation and value in [0, 255]."""
    pixel = np.array([[[hue % 180, saturation, value]]])
    red, green, blue = cv2.cvtColor(pixel.astype(np.uint8), cv2.COLOR_HSV2RGB)[0, 0]
    return int(red), int(green), int(blue)


def _clutter(rng: np.random.Generator, shape: tuple[int, int], hue: float) -> np.ndarray:
    """A background of muted shapes of similar colours."""
    base = np.full((*shape, 3), _colour(hue, 60, 150), np.uint8)
    canvas = enlarge(base)
    for _ in range(46):
        centre = rng.uniform(0, 1, 2) * shape[::-1]
        radius = rng.uniform(0.03, 0.16, 2) * min(shape)
        tone = _colour(hue + rng.uniform(-16, 16), rng.uniform(30, 95), rng.uniform(100, 195))
        polygon = ellipse(centre, *radius) if rng.random() < 0.5 else _shard(rng, centre, radius)
        draw_polygon(canvas, polygon, tone)
    bright = 1 + 0.16 * texture(shape, rng) + 0.12 * value_noise(shape, 70, rng)
    image = cv2.GaussianBlur(shrink(canvas), (0, 0), 0.8).astype(np.float32)
    return np.clip(np.rint(image * bright[:, :, None]), 0, 255).astype(np.uint8)


def _shard(rng: np.random.Generator, centre: np.ndarray, radius: np.ndarray) -> np.ndarray:
    angles = np.sort(rng.uniform(0, 2 * np.pi, 5))
    return centre + np.stack([exact.cos(angles), exact.sin(angles)], axis=1) * radius * 1.2


def _place(
    image: np.ndarray, rng: np.random.Generator, outline: np.ndarray, hue: float
) -> tuple[np.ndarray, np.ndarray]:
    """Put a textured, shaded object on a picture; returns the picture and the object's mask."""
    shape = image.shape[:2]
    fine = enlarge(np.zeros(shape, np.uint8))
    draw_polygon(fine, outline, 255)
    cover = shrink(fine).astype(np.float32)[:, :, None] / 255
    below = np.roll(cv2.GaussianBlur(cover[:, :, 0], (0, 0), 3.0), 3, axis=0)[:, :, None]
    ground = image * (1 - 0.4 * below)
    surface = _surface(rng, shape, outline, hue)
    mixed = np.clip(np.rint(ground * (1 - cover) + surface * cover), 0, 255).astype(np.uint8)
    return mixed, fine[1::3, 1::3] > 0


def _surface(
    rng: np.random.Generator, shape: tuple[int, int], outline: np.ndarray, hue: float
) -> np.ndarray:
    """Colours (H, W, 3) float32 of an object: plain, striped, dotted or grained, lit from above."""
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    hue += rng.uniform(-25, 25)
    bright = np.array(_colour(hue, rng.uniform(130, 210), rng.uniform(190, 240)), np.float32)
    dark = np.array(_colour(hue + rng.uniform(-20, 20), 190, rng.uniform(90, 150)), np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(5, 10)
    along = columns * exact.cos(angle) + rows * exact.sin(angle)
    across = rows * exact.cos(angle) - columns * exact.sin(angle)
    kind = int(rng.integers(4))
    share = {
        0: np.zeros(shape, np.float32),
        1: 0.5 + 0.5 * exact.tanh(4 * exact.sin(2 * np.pi * along / period)),
        2: 0.5 + 0.5 * exact.tanh(6 * (exact.sin(along * 0.8) * exact.sin(across * 0.8) - 0.45)),
        3: 0.5 + 0.5 * texture(shape, rng),
    }[kind][:, :, None]
    top, bottom = outline[:, 1].min(), outline[:, 1].max()
    light = 1.12 - 0.4 * np.clip((rows - top) / max(bottom - top, 1), 0, 1)
    return ((1 - share) * bright + share * dark) * light[:, :, None]


def _blob(rng: np.random.Generator) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    radius = np.ones(64)
    for order in (2, 3, 4):
        radius += rng.uniform(-0.16, 0.16) * exact.cos(order * angles + rng.uniform(0, 6))
    return np.stack([exact.cos(angles), exact.sin(angles)], axis=1) * radius[:, None]


def _star(rng: np.random.Generator) -> np.ndarray:
    points = int(rng.integers(5, 8))
    angles = np.arange(2 * points) * np.pi / points
    radius = np.where(np.arange(2 * points) % 2, rng.uniform(0.5, 0.62), 1.2)
    return np.stack([exact.sin(angles), -exact.cos(angles)], axis=1) * radius[:, None]


def _flower(rng: np.random.Generator) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    radius = 0.85 + 0.28 * exact.cos(int(rng.integers(5, 8)) * angles)
    return np.stack([exact.cos(angles), exact.sin(angles)], axis=1) * radius[:, None]


def _fish(rng: np.random.Generator) -> np.ndarray:
    angles = np.linspace(0.36, 2 * np.pi - 0.36, 48)
    height = rng.uniform(0.5, 0.7)
    body = np.stack([-1.2 * exact.cos(angles), height * exact.sin(angles)], axis=1)
    tail = np.array([(-1.75, -0.62), (-1.5, 0.0), (-1.75, 0.62)])
    return np.concatenate([body, tail])


def _vase(rng: np.random.Generator) -> np.ndarray:
    y = np.linspace(-1.2, 1.1, 24)
    half = 0.58 + rng.uniform(0.2, 0.32) * exact.cos(2.86 * (y - 0.3))
    return np.concatenate([np.stack([half, y], axis=1), np.stack([-half, y], axis=1)[::-1]])


def _house(rng: np.random.Generator) -> np.ndarray:
    roof = rng.uniform(-1.25, -0.95)
    eaves = [(-0.85, -0.3), (-1.1, -0.3), (0, roof), (1.1, -0.3), (0.85, -0.3)]
    return np.array([(0.85, 1.0), (-0.85, 1.0), *eaves])


_OUTLINES = (_blob, _star, _flower, _fish, _vase, _house)
