"""Faces with an expression: drawn to any size, and written in FER2013's layout.

A person is twelve ratios, a hair style and colours (`face_looks.Look`); an expression is a gesture
of brows, lids and mouth that both persons and chance vary. Turning, light, blur and glasses are
drawn apart from both, so that none of them tells who it is or what is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from flowsight import files
from flowsight.progress import track
from flowsight.samples import exact, face_layers, face_parts
from flowsight.samples.background import texture
from flowsight.samples.exact import transform
from flowsight.samples.face_looks import CLASSES, Gesture, Look, draw_gesture, draw_look
from flowsight.samples.face_parts import SIDES
from flowsight.samples.layers import Colour, affine, composite
from flowsight.video.formats import write_image

LANDMARKS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
"""Left and right as the picture shows them."""
GROUPS = "groups.csv"
MAX_YAW_RAD = 35 * np.pi / 180
_PICTURE = 7


@dataclass(frozen=True, kw_only=True)
class View:
    """How a face is looked at, independent of who and what it shows."""

    yaw_rad: float = 0.0
    roll_rad: float = 0.0
    scale: float = 0.36
    """Half of the face's height as a share of the picture's side."""
    shift: tuple[float, float] = (0.0, 0.0)
    """Of the face's middle from the picture's, as shares of the side."""
    light: float = 0.0
    """How much brighter one side is than the other."""
    light_from_rad: float = 0.0
    exposure: float = 1.0
    blur: float = 0.0
    """Sigma as a share of the side."""
    noise: float = 0.0
    """Standard deviation in grey levels."""
    glasses: bool = False
    backdrop: Colour = (150, 156, 160)
    shirt: Colour = (90, 104, 128)


@dataclass(frozen=True, kw_only=True, eq=False)
class Face:
    """A drawn face with the truth about it."""

    image: np.ndarray
    """(H, H, 3) uint8 RGB."""
    box: tuple[float, float, float, float]
    """x1 y1 x2 y2 in px round skull and chin, hair and ears left out; may reach outside."""
    landmarks: np.ndarray
    """(5, 2) float px, `LANDMARKS`."""
    features: np.ndarray
    """(H, H) bool: brows, eyes, nose and mouth."""


def draw_view(rng: np.random.Generator, *, glasses_share: float = 0.25) -> View:
    """How a picture is taken, by chance."""
    tone = int(rng.integers(70, 215))
    return View(
        yaw_rad=rng.uniform(-MAX_YAW_RAD, MAX_YAW_RAD),
        roll_rad=rng.uniform(-0.12, 0.12),
        scale=rng.uniform(0.42, 0.49),
        shift=(rng.uniform(-0.03, 0.03), rng.uniform(-0.03, 0.03)),
        light=rng.uniform(0, 0.35),
        light_from_rad=rng.uniform(0, 2 * np.pi),
        exposure=rng.uniform(0.85, 1.15),
        blur=rng.uniform(0, 0.011),
        noise=rng.uniform(1, 5),
        glasses=rng.random() < glasses_share,
        backdrop=(tone, tone, min(255, tone + 6)),
        shirt=(int(rng.integers(60, 220)), int(rng.integers(60, 220)), int(rng.integers(60, 220))),
    )


def render_face(
    look: Look, gesture: Gesture, view: View, size_px: int, rng: np.random.Generator
) -> Face:
    """Draw a face.

    Args:
        look: who.
        gesture: what the face does.
        view: how it is looked at.
        size_px: H, the picture's side.
        rng: for the backdrop's texture and the noise.
    """
    half = view.scale * size_px
    middle = ((size_px - 1) / 2 + view.shift[0] * size_px,
              (size_px - 1) / 2 + (view.shift[1] + 0.02) * size_px)  # fmt: skip
    matrix = affine(-view.roll_rad, middle)
    matrix[:2, :2] *= half
    bright = 1 + 0.12 * texture((size_px, size_px), rng)
    backdrop = np.rint(np.array(view.backdrop, np.float32) * bright[:, :, None])
    layers = face_layers.layers(
        look, gesture, matrix, yaw=view.yaw_rad, shirt=view.shirt, glasses=view.glasses
    )
    image, labels = composite(np.clip(backdrop, 0, 255).astype(np.uint8), layers)
    numbers = [i for i, layer in enumerate(layers) if layer.name in face_layers.FEATURES]
    outline = transform(matrix, face_parts.skull(look, view.yaw_rad))
    return Face(
        image=_finish(image, view, rng),
        box=(*outline.min(axis=0).tolist(), *outline.max(axis=0).tolist()),
        landmarks=transform(matrix, _landmarks(look, gesture, view.yaw_rad)),
        features=np.isin(labels, numbers),
    )


def _landmarks(look: Look, gesture: Gesture, yaw: float) -> np.ndarray:
    eyes = np.array([(side * look.eye_gap, look.eye_y) for side in SIDES])
    tip = np.array([(0.0, face_parts.nose_end(look, gesture) - 0.03)])
    corners = face_parts.mouth(look, gesture).corners
    depths = (0.0, face_parts.TIP_DEPTH, 0.0)
    return np.concatenate(
        [
            face_parts.turn(p, look, yaw, d)
            for p, d in zip((eyes, tip, corners), depths, strict=True)
        ]
    )


def _finish(image: np.ndarray, view: View, rng: np.random.Generator) -> np.ndarray:
    """Light from one side, blur, noise."""
    side = image.shape[0]
    rows, columns = np.mgrid[:side, :side].astype(np.float32) / max(side - 1, 1) - 0.5
    slope = columns * exact.cos(view.light_from_rad) + rows * exact.sin(view.light_from_rad)
    lit = image * (view.exposure * (1 + view.light * 2 * slope))[:, :, None].astype(np.float32)
    if view.blur * side > 0.1:
        lit = cv2.GaussianBlur(lit, (0, 0), view.blur * side)
    lit = lit + rng.normal(0, view.noise, lit.shape[:2])[:, :, None]
    return np.clip(np.rint(lit), 0, 255).astype(np.uint8)


def write_dataset(
    out: Path, *, seed: int, num_train: int, num_test: int, num_pictures: int, size_px: int = 48
) -> None:
    """Write `<train|test>/<class>/<person>_<n>.png` (grey) and `groups.csv` into a folder.

    `groups.csv` (columns image, group) tells who is in each picture; who is below `train` is never
    below `test`.

    Args:
        out: an existing folder.
        seed: everything follows from it.
        num_train, num_test: persons.
        num_pictures: of each person and class.
        size_px: side.
    """
    lines = ["image,group"]
    for person in track(range(num_train + num_test), "rendering faces"):
        side, look = "train" if person < num_train else "test", draw_look(seed, person)
        for number in range(num_pictures * len(CLASSES)):
            index = person * num_pictures * len(CLASSES) + number
            expression = CLASSES[number % len(CLASSES)]
            face = picture(look, expression, size_px, seed=seed, index=index)
            name = f"{side}/{expression}/p{person:02d}_{number // len(CLASSES)}.png"
            write_image(out / name, cv2.cvtColor(face.image, cv2.COLOR_RGB2GRAY))
            lines.append(f"{name},p{person:02d}")
    with files.atomic_file(out / GROUPS) as temporary:
        temporary.write_text("\n".join([lines[0], *sorted(lines[1:])]) + "\n", encoding="utf-8")


def picture(
    look: Look, expression: str, size_px: int, *, seed: int, index: int, **view: object
) -> Face:
    """One picture of a person; `view` fixes fields of `View` that else follow from chance."""
    rng = np.random.default_rng([seed, _PICTURE, index])
    gesture, drawn = draw_gesture(expression, rng), draw_view(rng)
    return render_face(look, gesture, replace(drawn, **view), size_px, rng)  # type: ignore[arg-type]
