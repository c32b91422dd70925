"""An articulated figure seen from the side: looks, poses, body parts as rigid layers.

Body coordinates: x forward (where the figure faces), y down, ground at y = 0, the pelvis above
x = `Pose.travel`. All angles are radians, 0 hangs straight down, positive swings forward.
The near side is the one towards the viewer: a figure that faces right shows its right side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowsight.samples import exact
from flowsight.samples.exact import transform
from flowsight.samples.layers import Colour, Layer, affine, ellipse, limb, rectangle

THIGH, SHIN, TORSO, UPPER_ARM, FOREARM = 0.24, 0.22, 0.285, 0.165, 0.185
"""Lengths as shares of the height; the forearm ends in the middle of the hand."""
_HEAD_RADIUS, _SOLE, _FOOT = 0.085, 0.04, 0.135

_SKINS: tuple[Colour, ...] = ((236, 196, 166), (212, 164, 128), (168, 122, 92), (224, 180, 144))
_HAIRS: tuple[Colour, ...] = ((112, 84, 62), (196, 164, 98), (134, 98, 64), (150, 150, 152))
_SHIRTS: tuple[Colour, ...] = (
    (120, 148, 128),
    (150, 128, 160),
    (214, 206, 186),
    (198, 172, 172),
    (170, 160, 128),
    (178, 182, 208),
)
_TROUSERS: tuple[Colour, ...] = ((104, 112, 136), (136, 124, 108), (104, 128, 122), (130, 132, 140))
_SHOES: tuple[Colour, ...] = ((228, 228, 224), (170, 146, 120), (180, 186, 196))
"""Muted and never dark: strong colours and black belong to the objects."""

Detail = tuple[np.ndarray, Colour]


@dataclass(frozen=True, kw_only=True)
class Look:
    """What stays the same in all clips of a group: size, proportions, clothes."""

    height: float
    """Pixels, from soles to crown."""
    build: float
    """Factor on the width of body and limbs."""
    skin: Colour
    hair: Colour
    shirt: Colour
    trousers: Colour
    shoes: Colour
    pattern: int
    """Of the shirt: 0 plain, 1 stripes, 2 chest band."""


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Joint angles in one frame; pairs are (near side, far side)."""

    travel: float = 0.0
    """Pixels the pelvis has moved forward."""
    depth: float = 0.0
    """Pixels the figure has moved away from the viewer, up in the picture."""
    lean: float = 0.0
    """Of the torso, forward positive."""
    hips: tuple[float, float] = (0.0, 0.0)
    knees: tuple[float, float] = (0.0, 0.0)
    """Bend backward, 0 straight."""
    shoulders: tuple[float, float] = (0.0, 0.0)
    elbows: tuple[float, float] = (0.2, 0.2)
    """Bend forward, 0 straight."""


def draw_look(number: int, rng: np.random.Generator, height: float) -> Look:
    """The look of a group: colours cycle with its number, so that neighbours differ."""
    return Look(
        height=height * rng.uniform(0.93, 1.03),
        build=rng.uniform(0.9, 1.15),
        skin=_SKINS[number % len(_SKINS)],
        hair=_HAIRS[(number + number // len(_HAIRS)) % len(_HAIRS)],
        shirt=_SHIRTS[number % len(_SHIRTS)],
        trousers=_TROUSERS[(number * 3 + 1) % len(_TROUSERS)],
        shoes=_SHOES[number % len(_SHOES)],
        pattern=number % 3,
    )


def shade(colour: Colour, factor: float) -> Colour:
    """A darker (below 1) or lighter (above 1) variant of a colour."""
    red, green, blue = (int(min(255, round(value * factor))) for value in colour)
    return red, green, blue


def reach(dx: float, dy: float, height: float) -> tuple[float, float]:
    """Angles of shoulder and elbow that bring a hand to (dx, dy) from the shoulder.

    Targets out of reach are approached with a nearly straight arm (law of cosines).
    """
    upper, lower = UPPER_ARM * height, FOREARM * height
    distance = float(
        np.clip(np.sqrt(dx * dx + dy * dy), 1.02 * abs(lower - upper), 0.995 * (upper + lower))
    )
    cosine = (distance * distance - upper * upper - lower * lower) / (2 * upper * lower)
    elbow = float(exact.arccos(cosine))
    ahead = exact.arctan2(lower * exact.sin(elbow), upper + lower * exact.cos(elbow))
    return float(exact.arctan2(dx, dy) - ahead), elbow


def skeleton(look: Look, pose: Pose) -> dict[str, np.ndarray]:
    """Matrices (3, 3) from each part's local coordinates to body coordinates.

    The lower foot stands on the ground, which fixes the height of the pelvis.
    """
    height = look.height
    legs: dict[str, np.ndarray] = {}
    for side, hip, knee in zip(("near", "far"), pose.hips, pose.knees, strict=True):
        thigh = affine(hip)
        shin = affine(hip - knee, transform(thigh, np.array([0, THIGH * height])))
        ankle = transform(shin, np.array([0, SHIN * height]))
        flat = 0.55 * (hip - knee) if hip - knee < 0 else 0.8 * (hip - knee)
        legs |= {f"{side}_thigh": thigh, f"{side}_shin": shin, f"{side}_foot": affine(flat, ankle)}
    feet = [transform(legs[f"{side}_foot"], _foot(look))[:, 1].max() for side in ("near", "far")]
    pelvis = np.array([pose.travel, -max(feet) - pose.depth])
    matrices = {name: exact.compose(affine(0, pelvis), matrix) for name, matrix in legs.items()}
    matrices["torso"] = affine(-pose.lean, pelvis)
    neck = transform(matrices["torso"], np.array([0, -TORSO * height]))
    matrices["neck"] = matrices["head"] = affine(-0.4 * pose.lean, neck)
    shoulder = shoulder_point(matrices, look)
    for side, angle, elbow in zip(("near", "far"), pose.shoulders, pose.elbows, strict=True):
        matrices[f"{side}_upper_arm"] = affine(angle, shoulder)
        end = transform(matrices[f"{side}_upper_arm"], np.array([0, UPPER_ARM * height]))
        matrices[f"{side}_forearm"] = affine(angle + elbow, end)
    return matrices


def shoulder_point(matrices: dict[str, np.ndarray], look: Look) -> np.ndarray:
    """Where the arms begin, (2,), body coordinates."""
    return transform(matrices["torso"], np.array([0, -0.9 * TORSO * look.height]))


def _foot(look: Look) -> np.ndarray:
    size, sole = _FOOT * look.height, _SOLE * look.height
    profile = [(-0.3, 0.2), (-0.24, -0.6), (0.2, -0.7), (0.55, -0.1), (0.7, 0.3), (0.7, 1)]
    return np.array([(x * size, y * sole) for x, y in [*profile, (-0.3, 1)]])


def _head(look: Look) -> tuple[np.ndarray, tuple[Detail, ...]]:
    radius = _HEAD_RADIUS * look.height
    centre = np.array([0.15 * radius, -1.45 * radius])
    circle = ellipse(centre, 0.95 * radius, 1.08 * radius)
    nose = centre + np.array([1.12 * radius, 0.22 * radius])
    outline = np.insert(circle, 2, nose, axis=0)
    arc = np.radians(np.linspace(-40, -235, 14))
    hair = np.stack([0.95 * exact.cos(arc), 1.08 * exact.sin(arc)], axis=1) * radius + centre
    hair = np.concatenate([hair, centre + radius * np.array([[-0.25, 0.35], [-0.1, -0.35]])])
    eye = ellipse(centre + radius * np.array([0.55, -0.05]), 0.11 * radius, 0.17 * radius)
    mouth = rectangle(0.45 * radius, 0.47 * radius, 0.8 * radius, 0.57 * radius) + centre
    dark = shade(look.skin, 0.45)
    return outline, ((hair, look.hair), (eye, (40, 34, 32)), (mouth, dark))


def _torso(look: Look) -> tuple[np.ndarray, tuple[Detail, ...]]:
    length, width = TORSO * look.height, look.height * look.build
    hip, chest = 0.066 * width, 0.08 * width
    outline = limb(length, chest, hip)
    outline = np.stack([outline[:, 0], outline[:, 1] - length], axis=1)
    details = []
    if look.pattern == 1:
        for y in np.linspace(-0.9, -0.1, 4) * length:
            details.append((rectangle(-hip, y, hip, y + 0.1 * length), shade(look.shirt, 0.72)))
    if look.pattern == 2:
        band = rectangle(-hip, -0.72 * length, hip, -0.48 * length)
        details.append((band, shade(look.shirt, 1.35)))
    belt = rectangle(-0.95 * hip, 0.02 * length, 0.95 * hip, 0.09 * length)
    return outline, (*details, (belt, shade(look.trousers, 0.6)))


def _limb_outline(look: Look, length: float, start: float, end: float) -> np.ndarray:
    width = look.height * look.build
    return limb(length * look.height, start * width, end * width)


def figure_layers(look: Look, matrices: dict[str, np.ndarray]) -> dict[str, Layer]:
    """Body parts by name, back to front, in body coordinates.

    Args:
        look: the actor.
        matrices: from `skeleton`.
    """
    height = look.height
    head, head_details = _head(look)
    torso, torso_details = _torso(look)
    hand = ellipse((0, FOREARM * height), 0.03 * height, 0.036 * height)
    forearm = _limb_outline(look, FOREARM, 0.031, 0.027)
    shin = _limb_outline(look, SHIN, 0.043, 0.03)
    seam = rectangle(-0.01 * height, 0.1 * height, 0.008 * height, 0.2 * height)
    layers: dict[str, Layer] = {}

    def add(name: str, outline: np.ndarray, colour: Colour, grain: float, *details: Detail) -> None:
        dim = 0.74 if name.startswith("far_") else 1.0
        shaded = tuple((polygon, shade(tone, dim)) for polygon, tone in details)
        layers[name] = Layer(
            name=name,
            matrix=matrices[name],
            outline=outline,
            colour=shade(colour, dim),
            details=shaded,
            grain=grain,
            grain_phase=float(len(layers)),
        )

    def add_arm(side: str) -> None:
        upper = _limb_outline(look, UPPER_ARM, 0.039, 0.033)
        add(f"{side}_upper_arm", upper, shade(look.shirt, 0.9), 0.12)
        add(f"{side}_forearm", forearm, look.skin, 0.06, (hand, shade(look.skin, 1.06)))

    def add_leg(side: str) -> None:
        thigh = _limb_outline(look, THIGH, 0.058, 0.043)
        add(f"{side}_thigh", thigh, look.trousers, 0.12, (seam, shade(look.trousers, 1.25)))
        add(f"{side}_shin", shin, look.trousers, 0.12)
        add(f"{side}_foot", _foot(look), look.shoes, 0.06)

    add_arm("far")
    add_leg("far")
    add_leg("near")
    add("neck", limb(-0.6 * _HEAD_RADIUS * height, 0.035 * height, 0.035 * height), look.skin, 0)
    add("torso", torso, look.shirt, 0.14, *torso_details)
    add("head", head, look.skin, 0.03, *head_details)
    add_arm("near")
    return layers


def keypoints(look: Look, matrices: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, str]]:
    """Body joints: point (2,) in body coordinates, and the part that carries it."""
    height = look.height
    radius = _HEAD_RADIUS * height
    face = {"nose": (0.9, -1.28), "near_eye": (0.7, -1.5), "far_eye": (0.85, -1.5)}
    face |= {"near_ear": (-0.05, -1.35), "far_ear": (0.1, -1.35)}
    points = {name: (np.array(point) * radius, "head") for name, point in face.items()}
    for side in ("near", "far"):
        points |= {
            f"{side}_shoulder": (np.zeros(2), f"{side}_upper_arm"),
            f"{side}_elbow": (np.zeros(2), f"{side}_forearm"),
            f"{side}_wrist": (np.array([0, 0.9 * FOREARM * height]), f"{side}_forearm"),
            f"{side}_hip": (np.zeros(2), f"{side}_thigh"),
            f"{side}_knee": (np.zeros(2), f"{side}_shin"),
            f"{side}_ankle": (np.zeros(2), f"{side}_foot"),
        }
    return {name: (transform(matrices[part], at), part) for name, (at, part) in points.items()}
