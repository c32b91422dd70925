"""A face's layers, back to front: hair, neck, skin, eyes, brows, nose, mouth, glasses."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from flowsight.samples import face_parts
from flowsight.samples.face_looks import RECEDING, Gesture, Look
from flowsight.samples.face_parts import SIDES
from flowsight.samples.figure import shade
from flowsight.samples.layers import Colour, Layer

FEATURES = ("brow", "eye", "nose", "mouth")
"""Names of the layers that a face shows its expression with."""
_WHITE, _PUPIL, _GAP, _TEETH = (240, 238, 234), (16, 14, 16), (70, 26, 28), (246, 244, 236)
_RIM = (40, 36, 40)

Detail = tuple[np.ndarray, Colour]
Part = tuple[str, np.ndarray, Colour, tuple[Detail, ...]]


def layers(
    look: Look, gesture: Gesture, matrix: np.ndarray, *, yaw: float, shirt: Colour, glasses: bool
) -> list[Layer]:
    """All parts of a head.

    Args:
        look: who.
        gesture: what the face does.
        matrix: (3, 3), face coordinates to screen pixels.
        yaw: radians, positive turns the nose to the picture's right.
        shirt: its colour.
        glasses: whether they are worn.
    """
    parts = [*_head(look, yaw, shirt), *_eyes(look, gesture, yaw), *_nose(look, gesture, yaw)]
    parts += _mouth(look, gesture, yaw)
    if look.hair_style != RECEDING:
        parts.append(("hair", face_parts.hair_front(look, yaw), look.hair, ()))
    if glasses:
        rims = [face_parts.glasses(look, side) for side in SIDES]
        for outline in (*rims, face_parts.bridge(look)):
            parts.append(("glasses", face_parts.turn(outline, look, yaw, 0.1), _RIM, ()))
    return [
        Layer(name=name, matrix=matrix, outline=outline, colour=colour, details=details)
        for name, outline, colour, details in parts
    ]


def _head(look: Look, yaw: float, shirt: Colour) -> Iterator[Part]:
    yield "hair", face_parts.hair_behind(look, yaw), shade(look.hair, 0.85), ()
    yield "neck", face_parts.neck(look), shade(look.skin, 0.78), ()
    yield "shirt", face_parts.shoulders(), shirt, ()
    for side in SIDES:
        yield "ear", face_parts.ear(look, side, yaw), shade(look.skin, 0.88), ()
    yield "skin", face_parts.skull(look, yaw), look.skin, ()


def _eyes(look: Look, gesture: Gesture, yaw: float) -> Iterator[Part]:
    """Eyes under their lids, brows, and the lines between brows that are drawn together."""
    for side in SIDES:
        white, iris, pupil = (
            face_parts.turn(p, look, yaw) for p in face_parts.eye(look, gesture, side)
        )
        yield "eye", white, _WHITE, ((iris, look.iris), (pupil, _PUPIL))
        lid = face_parts.turn(face_parts.lid(look, gesture, side), look, yaw)
        yield "eye", lid, shade(look.skin, 0.3), ()
        brow = face_parts.turn(face_parts.brow(look, gesture, side), look, yaw)
        yield "brow", brow, shade(look.hair, 0.7), ()
    if gesture.brow_tilt > 0.08:
        for line in face_parts.furrows(look):
            yield "brow", face_parts.turn(line, look, yaw, 0.03), shade(look.skin, 0.55), ()


def _nose(look: Look, gesture: Gesture, yaw: float) -> Iterator[Part]:
    """The side in shade, the tip with its holes, and wrinkles where the nose is drawn up."""
    ridge, tip, holes = face_parts.nose(look, gesture)
    rise = (ridge[:, 1] - ridge[:, 1].min()) / np.ptp(ridge[:, 1])
    away = np.array([-1.0 if yaw > 0 else 1.0, 1.0])
    side = face_parts.turn(ridge * away, look, yaw, 0.06 + 0.2 * rise)
    yield "nose", side, shade(look.skin, 0.9), ()
    dark = shade(look.skin, 0.45)
    details = tuple((face_parts.turn(hole, look, yaw, 0.2), dark) for hole in holes)
    tip = face_parts.turn(tip, look, yaw, face_parts.TIP_DEPTH)
    yield "nose", tip, shade(look.skin, 0.94), details
    if gesture.lip_raise > 0.03:
        for line in face_parts.wrinkles(look):
            yield "nose", face_parts.turn(line, look, yaw, 0.06), shade(look.skin, 0.6), ()


def _mouth(look: Look, gesture: Gesture, yaw: float) -> Iterator[Part]:
    """The lips, and lines beside them; a mouth that is drawn up on one side has one there only."""
    mouth = face_parts.mouth(look, gesture)
    dark = shade(look.skin, 1 - 0.42 * min(1.0, gesture.folds))
    for side in SIDES:
        if gesture.folds > 0.1 and side * gesture.one_sided >= 0:
            line = face_parts.fold(look, gesture, mouth.corners, side)
            yield "fold", face_parts.turn(line, look, yaw), dark, ()
    lips, gap, teeth = (face_parts.turn(p, look, yaw) for p in (mouth.lips, mouth.gap, mouth.teeth))
    yield "mouth", lips, look.lips, ((gap, _GAP), (teeth, _TEETH))
