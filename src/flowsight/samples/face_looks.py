"""Who a drawn face is, and what it does: persons and expressions as numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowsight.samples.figure import shade
from flowsight.samples.layers import Colour

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral", "contempt")
"""FER2013's seven in its order, then the eighth."""
RECEDING = 3
"""The hair style that leaves the forehead free."""
_PERSON = 6


@dataclass(frozen=True, kw_only=True)
class Look:
    """What stays the same in all pictures of a person: twelve ratios, a hair style and colours."""

    face_width: float
    jaw: float
    """Width of the jaw as a share of the face's."""
    hairline: float
    eye_y: float
    eye_gap: float
    """From the middle to an eye's middle."""
    eye_size: float
    brow_y: float
    """Above the eye's middle."""
    brow_thickness: float
    nose_length: float
    nose_width: float
    mouth_width: float
    lip: float
    hair_style: int
    """0 short, 1 long, 2 curly, 3 (`RECEDING`) receding."""
    skin: Colour
    hair: Colour
    iris: Colour
    lips: Colour


@dataclass(frozen=True, kw_only=True)
class Gesture:
    """What an expression does to a face; zeros and ones are the neutral face."""

    brow_raise: float = 0.0
    brow_tilt: float = 0.0
    """Positive: the inner ends go down (anger), negative: up (sadness)."""
    eye_open: float = 1.0
    squint: float = 0.0
    """How far the lower lids rise."""
    curve: float = 0.0
    """Positive: the corners of the mouth go up."""
    opening: float = 0.0
    """Half of the gap between the lips."""
    width: float = 1.0
    lip_raise: float = 0.0
    """How far the upper lip and the nose go up."""
    teeth: float = 0.0
    """Share of the gap that the upper teeth fill."""
    folds: float = 0.0
    """Darkness of the lines from the nose to the mouth's corners."""
    one_sided: float = 0.0
    """How far one corner of the mouth goes up alone; the sign says which."""


_GESTURES = {
    "angry": Gesture(brow_raise=-0.08, brow_tilt=0.19, eye_open=0.85, squint=0.35, curve=-0.06,
                     width=0.9, folds=0.2),
    "disgust": Gesture(brow_raise=-0.05, brow_tilt=0.06, eye_open=0.55, squint=0.6, curve=-0.1,
                       opening=0.045, lip_raise=0.075, teeth=0.6, width=0.9, folds=0.8),
    "fear": Gesture(brow_raise=0.08, brow_tilt=-0.12, eye_open=1.55, curve=-0.05, opening=0.06,
                    width=1.18, teeth=0.45),
    "happy": Gesture(brow_raise=0.02, eye_open=0.85, squint=0.5, curve=0.15, opening=0.055,
                     width=1.2, teeth=0.75, folds=0.6),
    "sad": Gesture(brow_raise=0.0, brow_tilt=-0.2, eye_open=0.68, curve=-0.14, width=0.85),
    "surprise": Gesture(brow_raise=0.13, eye_open=1.6, opening=0.17, width=0.6),
    "neutral": Gesture(),
    "contempt": Gesture(eye_open=0.8, squint=0.15, curve=0.01, width=1.0, folds=0.5,
                        one_sided=0.19),
}  # fmt: skip
_SKINS: tuple[Colour, ...] = (
    (244, 208, 182), (232, 190, 158), (212, 164, 128), (180, 132, 98), (142, 98, 70), (108, 74, 54)
)  # fmt: skip
_HAIRS: tuple[Colour, ...] = (
    (34, 28, 26), (72, 48, 34), (118, 76, 44), (182, 140, 84), (150, 62, 36), (150, 148, 146)
)  # fmt: skip
_IRISES: tuple[Colour, ...] = ((70, 46, 30), (96, 74, 40), (74, 104, 70), (70, 104, 142))


def draw_look(seed: int, person: int) -> Look:
    """A person, the same for the same numbers."""
    rng = np.random.default_rng([seed, _PERSON, person])
    skin = shade(_SKINS[rng.integers(len(_SKINS))], rng.uniform(0.94, 1.04))
    return Look(
        face_width=rng.uniform(0.68, 0.83),
        jaw=rng.uniform(0.58, 0.86),
        hairline=rng.uniform(-0.7, -0.55),
        eye_y=rng.uniform(-0.16, -0.06),
        eye_gap=rng.uniform(0.27, 0.34),
        eye_size=rng.uniform(0.13, 0.17),
        brow_y=rng.uniform(0.2, 0.25),
        brow_thickness=rng.uniform(0.03, 0.06),
        nose_length=rng.uniform(0.32, 0.42),
        nose_width=rng.uniform(0.11, 0.16),
        mouth_width=rng.uniform(0.25, 0.32),
        lip=rng.uniform(0.04, 0.07),
        hair_style=int(rng.integers(4)),
        skin=skin,
        hair=shade(_HAIRS[rng.integers(len(_HAIRS))], rng.uniform(0.85, 1.15)),
        iris=_IRISES[rng.integers(len(_IRISES))],
        lips=_mixed(shade(skin, 0.8), (170, 60, 66), rng.uniform(0.25, 0.6)),
    )


def draw_gesture(expression: str, rng: np.random.Generator) -> Gesture:
    """An expression as strong as chance wants it, with a little of everything else.

    Args:
        expression: one of `CLASSES`.
        rng: for strength and differences.
    """
    aim, rest = _GESTURES[expression], Gesture()
    strength = rng.uniform(0.8, 1.15)
    numbers = {
        name: getattr(rest, name) + strength * (getattr(aim, name) - getattr(rest, name))
        for name in Gesture.__dataclass_fields__
    }
    for name, spread in (("brow_raise", 0.015), ("brow_tilt", 0.02), ("curve", 0.015),
                         ("eye_open", 0.08), ("width", 0.04)):  # fmt: skip
        numbers[name] += rng.uniform(-spread, spread)
    numbers["one_sided"] *= 1 if rng.random() < 0.5 else -1
    return Gesture(**numbers)


def _mixed(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(one, other, strict=True))
    return red, green, blue
