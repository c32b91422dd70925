"""Two static-camera sequences in CDnet 2012's layout, with exact ground truth.

| grey | meaning |
|---|---|
| 0 | static |
| 50 | hard shadow |
| 85 | outside the region of interest, or before its first scored frame |
| 170 | unknown: the border of something that moves |
| 255 | moving |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from flowsight.progress import track
from flowsight.samples import actions, background, exact, figure, layers
from flowsight.video.formats import write_image

STATIC, SHADOW, OUTSIDE, UNKNOWN, MOVING = 0, 50, 85, 170, 255

_SCENE = 4
_SHADOW_LIGHT = 0.58
"""Share of the light that is left in a shadow."""


@dataclass(frozen=True, kw_only=True)
class Mover:
    """Something that crosses the picture."""

    layers_at: Callable[[float], list[layers.Layer]]
    """Screen layers, back to front, at a frame."""
    ground_at: Callable[[float], float]
    """Screen y of the ground it stands on."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A place and what moves in it."""

    name: str
    """`<category>/<sequence>`."""
    place: np.ndarray
    """(H, W, 3) uint8 RGB."""
    movers: list[Mover]
    sun: tuple[float, float]
    """Shadow of a point: (pixels sideways, pixels down) per pixel of height above the ground."""
    region: np.ndarray
    """(H, W) bool: where ground truth is given."""
    flicker: float
    """Amplitude of the light's slow change, as a share."""


def render(out: Path, *, seed: int, num_frames: int, shape: tuple[int, int]) -> None:
    """Write `shadow/room` and `baseline/street`.

    Args:
        out: an existing folder.
        seed: everything follows from it.
        num_frames: of each sequence; the first quarter is for building a background model.
        shape: (H, W) of the frames.
    """
    for scene in (_room(seed, shape, num_frames), _street(seed, shape, num_frames)):
        _write(out / scene.name, scene, num_frames, seed)


def _write(folder: Path, scene: Scene, num_frames: int, seed: int) -> None:
    rng = np.random.default_rng([seed, _SCENE, *scene.name.encode()])
    first = num_frames // 4 + 1
    region = np.where(scene.region, 255, 0).astype(np.uint8)
    write_image(folder / "ROI.bmp", region)
    write_image(folder / "ROI.jpg", np.repeat(region[:, :, None], 3, axis=2))
    (folder / "temporalROI.txt").write_text(f"{first} {num_frames}", encoding="ascii")
    for number in track(range(1, num_frames + 1), f"rendering {scene.name}"):
        image, truth = render_frame(scene, float(number), rng)
        if number < first:
            truth = np.full_like(truth, OUTSIDE)
        write_image(folder / "input" / f"in{number:06d}.jpg", image)
        write_image(folder / "groundtruth" / f"gt{number:06d}.png", truth)


def render_frame(
    scene: Scene, frame: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one frame.

    Returns:
        The picture (H, W, 3) uint8 RGB and its ground truth (H, W) uint8.
    """
    parts = [(part, mover) for mover in scene.movers for part in mover.layers_at(frame)]
    fine = layers.enlarge(np.zeros(scene.place.shape[:2], np.uint8))
    shade, solid = fine.copy(), fine.copy()
    for part, mover in parts:
        outline = exact.transform(part.matrix, part.outline)
        layers.draw_polygon(shade, _shadow_of(outline, mover.ground_at(frame), scene.sun), 255)
        layers.draw_polygon(solid, outline, 255)
    shadow, cover = layers.shrink(shade), layers.shrink(solid)
    light = 1 - (1 - _SHADOW_LIGHT) * shadow.astype(np.float32)[:, :, None] / 255
    place = np.rint(scene.place * light).astype(np.uint8)
    image, _ = layers.composite(place, [part for part, _ in parts])
    brightness = 1 + scene.flicker * exact.sin(0.23 * frame)
    noisy = image * brightness + rng.normal(0, 1.8, image.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8), _ground_truth(scene, cover, shadow)


def _ground_truth(scene: Scene, cover: np.ndarray, shadow: np.ndarray) -> np.ndarray:
    """Values 0, 50, 85, 170, 255 from the covered share of each pixel, both (H, W) uint8."""
    truth = np.full(cover.shape, STATIC, np.uint8)
    truth[shadow > 0] = UNKNOWN
    truth[shadow >= 160] = SHADOW
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    truth[cv2.dilate(cover, cross) > 0] = UNKNOWN
    truth[cover == 255] = MOVING
    truth[~scene.region] = OUTSIDE
    return truth


def _shadow_of(outline: np.ndarray, ground: float, sun: tuple[float, float]) -> np.ndarray:
    above = np.maximum(ground - outline[:, 1], 0)
    return np.stack([outline[:, 0] + sun[0] * above, ground + sun[1] * above], axis=1)


def _room(seed: int, shape: tuple[int, int], num_frames: int) -> Scene:
    rng = np.random.default_rng([seed, _SCENE, 1])
    region = np.ones(shape, bool)
    region[: shape[0] // 10] = False
    walkers = [
        _walker(rng, number=1, shape=shape, start=0.12, share=0.93, frames=num_frames, facing=1),
        _walker(rng, number=3, shape=shape, start=0.45, share=0.85, frames=num_frames, facing=-1),
    ]
    return Scene(
        name="shadow/room",
        place=background.draw_background(0, shape, rng, 0).image,
        movers=walkers,
        sun=(0.6, -0.27),
        region=region,
        flicker=0.015,
    )


def _street(seed: int, shape: tuple[int, int], num_frames: int) -> Scene:
    rng = np.random.default_rng([seed, _SCENE, 2])
    region = np.ones(shape, bool)
    region[: round(0.3 * shape[0])] = False
    place = background.draw_background(4, shape, rng, 0).image
    _paint_road(place)
    colours = ((52, 96, 150), (206, 206, 200), (150, 52, 48), (66, 110, 84))
    cars = [
        _car(shape, colours[index], start=start, frames=num_frames, facing=1 if index % 2 else -1)
        for index, start in enumerate((-0.05, 0.22, 0.48, 0.7))
    ]
    return Scene(
        name="baseline/street",
        place=place,
        movers=cars,
        sun=(0.5, 0.2),
        region=region,
        flicker=0.01,
    )


def _paint_road(place: np.ndarray) -> None:
    """Asphalt with a dashed line over the lower part of a picture, in place."""
    height, width = place.shape[:2]
    top = round(0.68 * height)
    grain = place[top:].astype(np.float32).mean(axis=2, keepdims=True)
    place[top:] = np.clip(np.rint(96 + 0.12 * (grain - grain.mean())), 0, 255).astype(np.uint8)
    place[top : top + 2] = (196, 194, 186)
    middle = round(0.84 * height)
    for x in range(4, width, 24):
        place[middle : middle + 2, x : x + 12] = (214, 210, 196)


def _walker(
    rng: np.random.Generator,
    *,
    number: int,
    shape: tuple[int, int],
    start: float,
    share: float,
    frames: int,
    facing: int,
) -> Mover:
    """A figure that crosses the picture once, from frame `start * frames` on."""
    look = figure.draw_look(number, rng, 0.6 * shape[0])
    ground, speed = share * shape[0], shape[1] / (0.5 * frames)
    seconds_per_pixel = 1 / (12 * 1.2 * shape[0] / 120)

    def layers_at(frame: float) -> list[layers.Layer]:
        way = speed * (frame - start * frames) - 0.3 * shape[0]
        x = way if facing > 0 else shape[1] - way
        if not -0.6 * shape[0] < x < shape[1] + 0.6 * shape[0]:
            return []
        pose = actions.pose_at("Walk", look, way * seconds_per_pixel, 0.0)
        pose = replace(pose, travel=0.0)
        screen = np.array([[facing, 0, x], [0, 1, ground], [0, 0, 1]], np.float64)
        parts = figure.figure_layers(look, figure.skeleton(look, pose))
        return [replace(part, matrix=exact.compose(screen, part.matrix)) for part in parts.values()]

    return Mover(layers_at=layers_at, ground_at=lambda frame: ground)


def _car(
    shape: tuple[int, int], colour: layers.Colour, *, start: float, frames: int, facing: int
) -> Mover:
    """A car that crosses the picture once; each direction has its lane."""
    size = shape[0] / 120
    ground = (0.79 if facing < 0 else 0.95) * shape[0]
    speed = shape[1] / (0.3 * frames)
    body = np.array([(0, -5), (1, -14), (11, -16), (18, -25), (36, -25), (44, -16), (54, -13)])
    body = np.concatenate([body, [(55, -5)]]) * size
    glass = np.array([(14, -16), (19.5, -23), (35, -23), (41, -16)]) * size
    pillar = layers.rectangle(27, -23, 29, -16) * size
    lamp = layers.rectangle(51, -12, 54.5, -9.5) * size
    details = ((glass, (96, 116, 132)), (pillar, colour), (lamp, (250, 240, 190)))

    def layers_at(frame: float) -> list[layers.Layer]:
        way = speed * (frame - start * frames) - 60 * size
        x = way if facing > 0 else shape[1] - way
        if not -60 * size < x < shape[1] + 60 * size:
            return []
        screen = np.array([[facing, 0, x], [0, 1, ground], [0, 0, 1]], np.float64)
        chassis = layers.Layer(
            name="body", matrix=screen, outline=body, colour=colour, details=details
        )
        parts = [chassis]
        for name, at in (("rear", 13.0), ("front", 43.0)):
            turn = layers.affine(-way / (5 * size), (at * size, -5 * size))
            hub = layers.rectangle(-2.5, -1, 2.5, 1) * size
            wheel = layers.ellipse((0, 0), 5 * size, 5 * size)
            parts.append(
                layers.Layer(
                    name=name,
                    matrix=exact.compose(screen, turn),
                    outline=wheel,
                    colour=(38, 38, 42),
                    details=((hub, (170, 170, 174)),),
                )
            )
        return parts

    return Mover(layers_at=layers_at, ground_at=lambda frame: ground)
