"""Parts of a drawn face: outlines of eyes, brows, nose, mouth, hair and glasses.

Face coordinates: the face's middle is (0, 0), x right as the picture shows it, y down, the crown of
the skull at y = -1 and the chin at about y = 1. The head is a ball cut by the features, so turning
it (yaw) moves what lies in front and narrows what lies at the side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowsight.samples import exact
from flowsight.samples.face_looks import RECEDING, Gesture, Look

SIDES = (-1, 1)
"""The eye at the left of the picture, the one at its right."""
_STEPS = np.linspace(-1, 1, 25)
TIP_DEPTH = 0.22
"""Of the nose's tip."""
_DEPTH = 0.62
_NECK_TOP = 0.55


def turn(points: np.ndarray, look: Look, yaw: float, depth: float | np.ndarray = 0.0) -> np.ndarray:
    """Face coordinates of points on a head that is turned.

    Args:
        points: (N, 2) of the head seen from the front.
        look: how wide the head is.
        yaw: radians, positive turns the nose to the picture's right.
        depth: how far the points stand out of the ball.
    """
    x, y = points[:, 0], points[:, 1]
    share = np.clip(x / (1.15 * look.face_width), -1, 1)
    front = _DEPTH * np.sqrt(1 - share * share) + depth
    return np.stack([x * exact.cos(yaw) + front * exact.sin(yaw), y], axis=1)


def skull(look: Look, yaw: float) -> np.ndarray:
    """Outline of the face: a ball whose lower half narrows to the chin, which follows the turn."""
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    x, y = exact.sin(angles), -exact.cos(angles)
    low = np.clip(y, 0, 1)
    narrow = 1 - (1 - look.jaw) * low * low
    shift = 0.34 * exact.sin(yaw) * (0.25 + 0.75 * np.clip(y + 0.25, 0, 1))
    return np.stack([x * look.face_width * narrow + shift, y], axis=1)


def ear(look: Look, side: int, yaw: float) -> np.ndarray:
    """One ear; the one that a turn hides ends behind the face."""
    x = side * look.face_width - 0.35 * exact.sin(yaw)
    return _oval(np.array([x, look.eye_y + 0.16]), 0.09, 0.19)


def eye(look: Look, gesture: Gesture, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """White of an eye, its iris and its pupil, (N, 2) each, seen from the front."""
    middle = np.array([side * look.eye_gap, look.eye_y])
    upper = -0.62 * look.eye_size * gesture.eye_open
    lower = 0.46 * look.eye_size * (0.5 + 0.5 * gesture.eye_open) * (1 - gesture.squint)
    bow = 1 - _STEPS * _STEPS
    top = np.stack([look.eye_size * _STEPS, upper * bow], axis=1)
    bottom = np.stack([look.eye_size * _STEPS, lower * bow], axis=1)[::-1]
    white = np.concatenate([top, bottom])
    discs = []
    for radius in (0.46 * look.eye_size, 0.2 * look.eye_size):
        disc = _oval(np.zeros(2), radius, radius)
        share = disc[:, 0] / look.eye_size
        arch = 1 - share * share
        disc[:, 1] = np.clip(disc[:, 1], upper * arch, lower * arch)
        discs.append(disc + middle)
    return white + middle, discs[0], discs[1]


def lid(look: Look, gesture: Gesture, side: int) -> np.ndarray:
    """The dark line over an eye."""
    upper = -0.62 * look.eye_size * gesture.eye_open
    bow = 1 - _STEPS * _STEPS
    wide = 1.12 * look.eye_size
    top = np.stack([wide * _STEPS, upper * bow - 0.035 * np.sqrt(bow)], axis=1)
    bottom = np.stack([wide * _STEPS, upper * bow + 0.006], axis=1)[::-1]
    return np.concatenate([top, bottom]) + np.array([side * look.eye_gap, look.eye_y])


def brow(look: Look, gesture: Gesture, side: int) -> np.ndarray:
    """An eyebrow, thick at its inner end."""
    along = side * _STEPS  # -1 at the inner end
    x = look.eye_gap * side + 1.35 * look.eye_size * _STEPS
    arch = 0.045 * (1 - along * along)
    tilt = gesture.brow_tilt * (0.15 - 0.5 * along)
    y = look.eye_y - look.brow_y - gesture.brow_raise - arch + tilt
    half = look.brow_thickness * (0.62 - 0.38 * along)
    return np.concatenate([np.stack([x, y - half], axis=1), np.stack([x, y + half], axis=1)[::-1]])


def nose(look: Look, gesture: Gesture) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Side of the nose in shade, its tip, and its two holes."""
    end = nose_end(look, gesture)
    top, half = look.eye_y + 0.05, look.nose_width
    bridge = np.array([(0.0, top), (0.35 * half, top), (0.5 * half, end - 0.12), (half, end - 0.03),
                       (0.0, end + 0.03)])  # fmt: skip
    tip = _oval(np.array([0.0, end - 0.03]), half, 0.085)
    holes = [_oval(np.array([s * 0.48 * half, end + 0.01]), 0.26 * half, 0.022) for s in SIDES]
    return bridge, tip, holes


def nose_end(look: Look, gesture: Gesture) -> float:
    """Height of the nose's tip."""
    return look.eye_y + 0.05 + look.nose_length - 0.35 * gesture.lip_raise


@dataclass(frozen=True, kw_only=True, eq=False)
class Mouth:
    """Outlines of a mouth, (N, 2) each, and its corners (2, 2), left first."""

    lips: np.ndarray
    gap: np.ndarray
    teeth: np.ndarray
    corners: np.ndarray


def mouth(look: Look, gesture: Gesture) -> Mouth:
    """Lips, what is between them, and the upper teeth."""
    t = _STEPS
    end = look.eye_y + 0.05 + look.nose_length
    middle = end + 0.42 * (1 - end) + 0.25 * gesture.opening
    side = np.clip(t * np.sign(gesture.one_sided), 0, 1)
    line = middle - gesture.curve * (t * t - 0.35) - abs(gesture.one_sided) * side * side
    bow = np.sqrt(1 - t * t)
    peak = np.clip(1 - t * t, 0, 1)
    upper = line - gesture.opening * bow - gesture.lip_raise * peak
    lower = line + gesture.opening * bow * 1.15
    x = look.mouth_width * gesture.width * t
    over = upper - look.lip * bow * (0.9 + 0.25 * (t * t - 0.1))
    under = lower + 1.35 * look.lip * bow
    seam = 0.011 * bow
    shown = upper + gesture.teeth * (lower - upper)
    return Mouth(
        lips=_between(x, over, under),
        gap=_between(x, upper - seam, lower + seam),
        teeth=_between(0.9 * x, upper, shown),
        corners=np.array([(x[0], line[0]), (x[-1], line[-1])]),
    )


def fold(look: Look, gesture: Gesture, corners: np.ndarray, side: int) -> np.ndarray:
    """The line from a nostril round a corner of the mouth."""
    start = np.array([side * 1.15 * look.nose_width, nose_end(look, gesture) - 0.05])
    corner = corners[(side + 1) // 2]
    end = corner + np.array([side * 0.09, 0.03])
    share = (_STEPS[:, None] + 1) / 2
    line = start * (1 - share) + end * share
    bulge = 0.05 * (1 - _STEPS * _STEPS)
    x = line[:, 0] + side * bulge
    thick = 0.02 * np.sqrt(1 - _STEPS * _STEPS)
    return np.concatenate(
        [np.stack([x - thick, line[:, 1]], axis=1), np.stack([x + thick, line[:, 1]], axis=1)[::-1]]
    )


def wrinkles(look: Look) -> list[np.ndarray]:
    """Short lines across the root of the nose."""
    rows = (look.eye_y - 0.03, look.eye_y + 0.05)
    return [_oval(np.array([0.0, y]), 0.11, 0.014) for y in rows]


def furrows(look: Look) -> list[np.ndarray]:
    """Two upright lines between the brows."""
    y = look.eye_y - look.brow_y + 0.02
    return [_oval(np.array([s * 0.045, y]), 0.013, 0.075) for s in SIDES]


def hair_behind(look: Look, yaw: float) -> np.ndarray:
    """What of the hair is behind the head."""
    wide = look.face_width * (1.2 if look.hair_style == 2 else 1.12)
    turned = -0.1 * exact.sin(yaw)
    if look.hair_style == 1:
        angles = np.linspace(-np.pi / 2, np.pi / 2, 40)
        top = np.stack([wide * exact.sin(angles), -1.14 * exact.cos(angles)], axis=1)
        ends = np.array([(1.12 * wide, 1.05), (0.55 * wide, 1.2), (-0.55 * wide, 1.2),
                         (-1.12 * wide, 1.05)])  # fmt: skip
        return np.concatenate([top, ends]) + np.array([turned, 0.0])
    angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    curls = 1 + (0.035 * exact.sin(15 * angles) if look.hair_style == 2 else 0.0)
    high = {0: 1.1, 2: 1.22, RECEDING: 1.04}[look.hair_style]
    x = wide * curls * exact.sin(angles) + turned
    y = np.clip(-high * curls * exact.cos(angles), -2, 0.25)
    return np.stack([x, y], axis=1)


def hair_front(look: Look, yaw: float) -> np.ndarray:
    """What of the hair lies on the forehead: above the hairline, round the temples."""
    back = 0.2 if look.hair_style == RECEDING else 0.0
    line = np.linspace(-1, 1, 31)
    parting = 0.12 * exact.sin(2.2 * line) if look.hair_style in (0, 1) else 0.0
    height = look.hairline - back + 0.32 * line * line * line * line + parting * (1 - line * line)
    inner = np.stack([look.face_width * 0.99 * line, height], axis=1)
    inner = turn(inner, look, 0.55 * yaw)
    outer = np.linspace(np.pi / 2, -np.pi / 2, 41)
    wide, high = look.face_width * 1.05, 1.08 - 0.04 * (look.hair_style == RECEDING)
    over = np.stack([wide * exact.sin(outer), -high * exact.cos(outer)], axis=1)
    over[:, 1] = np.where(np.abs(over[:, 0]) > 0.98 * wide, look.eye_y + 0.05, over[:, 1])
    return np.concatenate([inner, over])


def glasses(look: Look, side: int) -> np.ndarray:
    """A round rim: a ring as one polygon."""
    middle = np.array([side * (look.eye_gap + 0.01), look.eye_y + 0.02])
    outer = _oval(middle, 0.235, 0.195, closed=True)
    inner = _oval(middle, 0.2, 0.16, closed=True)
    return np.concatenate([outer, inner[::-1]])


def bridge(look: Look) -> np.ndarray:
    """What joins the two rims."""
    half = max(look.eye_gap - 0.21, 0.03)
    y = look.eye_y - 0.02
    return np.array([(-half, y - 0.02), (half, y - 0.02), (half, y + 0.02), (-half, y + 0.02)])


def neck(look: Look) -> np.ndarray:
    """From behind the chin to below the picture."""
    half = 0.62 * look.face_width * (0.6 + 0.4 * look.jaw)
    return np.array(
        [(-half, _NECK_TOP), (half, _NECK_TOP), (1.12 * half, 2.0), (-1.12 * half, 2.0)]
    )


def shoulders() -> np.ndarray:
    """A shirt at the lower edge."""
    return np.array([(-0.45, 1.28), (0.45, 1.28), (1.3, 1.55), (1.7, 3.0), (-1.7, 3.0),
                     (-1.3, 1.55)])  # fmt: skip


def _oval(middle: np.ndarray, half_x: float, half_y: float, *, closed: bool = False) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 33 if closed else 32, endpoint=closed)
    return middle + np.stack([half_x * exact.cos(angles), half_y * exact.sin(angles)], axis=1)


def _between(x: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    return np.concatenate([np.stack([x, upper], axis=1), np.stack([x, lower], axis=1)[::-1]])
