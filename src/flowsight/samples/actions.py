"""Eight actions in four pairs: what each class does, and with what.

| pair | what differs | what does not |
|---|---|---|
| Walk, Run | the speed | the poses and the backpack: frames of one could stand in the other |
| Push, Pull | the direction of time | the frames: Pull is Push played backwards |
| Kick, KickBall | pad or ball at the foot | the motion, and the size of what is at the foot |
| Drink, Phone | red cup or dark phone | the motion, and the size of what is in the hand |
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from flowsight.samples import exact
from flowsight.samples.exact import transform
from flowsight.samples.figure import FOREARM, TORSO, Look, Pose, reach, shoulder_point, skeleton
from flowsight.samples.layers import Colour, Layer, affine, ellipse, rectangle

CLASSES = ("Drink", "Kick", "KickBall", "Phone", "Pull", "Push", "Run", "Walk")
"""In the order of classInd.txt."""

PAIRS = {
    "Walk": "gait",
    "Run": "gait",
    "Push": "box",
    "Pull": "box",
    "Kick": "kick",
    "KickBall": "kick",
    "Drink": "hand",
    "Phone": "hand",
}
"""Both classes of a pair draw the same looks, places and phases, so nothing else tells them."""

_CYCLES_PER_SEC = {"Walk": 0.45, "Run": 1.05, "Push": 0.7, "Pull": 0.7}
_KICKS_PER_SEC, _SIPS_PER_SEC = 0.75, 0.75
_AWAY = 0.55
"""A box is pushed away from the viewer, up in the picture by this share of the way sideways, and
pulled back down: flow tells the two apart whichever way the figure faces."""
_GLIDE = 0.45
"""Share of the step length by which a figure advances: the camera follows it a little."""


@dataclass(frozen=True, kw_only=True)
class Prop:
    """An object that moves with the figure."""

    layer: Layer
    """In body coordinates."""
    after: str
    """Body part in front of which it is drawn."""


def pose_at(action: str, look: Look, seconds: float, phase: float, glide: float = 1.0) -> Pose:
    """Pose of a class at a time.

    Args:
        action: class name.
        look: the actor.
        seconds: time from the middle of the clip, negative before it.
        phase: of the movement in the middle of the clip, radians.
        glide: factor on the way covered on the ground.
    """
    pair = PAIRS[action]
    if pair == "gait":
        angle = 2 * np.pi * _CYCLES_PER_SEC[action] * seconds
        return _gait(look, phase + angle, glide * angle)
    if pair == "box":
        direction = 1 if action == "Push" else -1
        angle = 2 * np.pi * _CYCLES_PER_SEC[action] * seconds * direction
        return _lean_on_box(look, phase + angle, glide * angle)
    if pair == "kick":
        return _kick(phase + 2 * np.pi * _KICKS_PER_SEC * seconds)
    return _raise_hand(look, phase + 2 * np.pi * _SIPS_PER_SEC * seconds)


def _stride(angle: float, swing: float, bend: float) -> tuple[float, float]:
    """Hip and knee of one leg in a stride: the knee bends while the leg swings forward."""
    return swing * exact.sin(angle), 0.12 + bend * np.square(0.5 + 0.5 * exact.cos(angle))


def _gait(look: Look, angle: float, way: float) -> Pose:
    near, far = _stride(angle, 0.45, 0.95), _stride(angle + np.pi, 0.45, 0.95)
    arm = 0.5 * exact.sin(angle)
    advance = 4 * 0.46 * exact.sin(0.45) * look.height / (2 * np.pi)
    return Pose(
        travel=_GLIDE * advance * way,
        lean=0.1,
        hips=(near[0], far[0]),
        knees=(near[1], far[1]),
        shoulders=(-arm, arm),
        elbows=(0.9 - 0.3 * exact.sin(angle), 0.9 + 0.3 * exact.sin(angle)),
    )


def _lean_on_box(look: Look, angle: float, way: float) -> Pose:
    near, far = _stride(angle, 0.3, 0.5), _stride(angle + np.pi, 0.3, 0.5)
    travel = 0.75 * 4 * 0.46 * exact.sin(0.3) * look.height / (2 * np.pi) * way
    pose = Pose(
        travel=travel,
        depth=_AWAY * travel,
        lean=0.24,
        hips=(near[0], far[0]),
        knees=(near[1], far[1]),
    )
    x, y = shoulder_point(skeleton(look, pose), look)
    target_x, target_y = travel + 0.285 * look.height, -pose.depth - 0.5 * look.height
    arm = reach(target_x - x, target_y - y, look.height)
    other = reach(target_x - x, target_y - y + 0.05 * look.height, look.height)
    return replace(pose, shoulders=(arm[0], other[0]), elbows=(arm[1], other[1]))


def _kick(angle: float) -> Pose:
    hip = 0.42 - 0.58 * exact.cos(angle)
    knee = 0.1 + 0.75 * np.square(0.5 + 0.5 * exact.cos(angle - 0.7))
    sway = 0.35 * exact.cos(angle)
    return Pose(
        lean=-0.06,
        hips=(hip, -0.05),
        knees=(knee, 0.06),
        shoulders=(-0.35 + sway, 0.2 - sway),
        elbows=(0.5, 0.5),
    )


def _raise_hand(look: Look, angle: float) -> Pose:
    share = 0.5 - 0.5 * exact.cos(angle)
    pose = Pose(hips=(0.04, -0.08), knees=(0.04, 0.04), elbows=(0.2, 0.25), shoulders=(0, -0.05))
    low, high = np.array([0.23, 0.22]), np.array([0.125, -0.125])
    dx, dy = (low + share * (high - low)) * look.height
    shoulder, elbow = reach(dx, dy, look.height)
    return replace(pose, shoulders=(shoulder, -0.05), elbows=(elbow, 0.25))


def props(action: str, look: Look, pose: Pose, matrices: dict[str, np.ndarray]) -> list[Prop]:
    """What the figure holds, wears at the foot, or moves, as it stands in one frame."""
    pair = PAIRS[action]
    if pair == "gait":
        return [Prop(layer=_backpack(look, matrices), after="torso")]
    if pair == "box":
        return [Prop(layer=_box(look, pose), after="head")]
    if pair == "kick":
        return [Prop(layer=_at_foot(action, look, matrices), after="near_foot")]
    if pair == "hand":
        return [Prop(layer=_in_hand(action, look, matrices), after="near_upper_arm")]
    return []


def _box(look: Look, pose: Pose) -> Layer:
    width, height = 0.36 * look.height, 0.56 * look.height
    wood, dark, light = (30, 78, 200), (14, 36, 110), (84, 142, 240)
    frame = 0.11 * width
    details: list[tuple[np.ndarray, Colour]] = []
    details.append((rectangle(frame, -height + frame, width - frame, -frame), light))
    for x in (0.37, 0.63):
        plank = rectangle(x * width - 0.6, -height + frame, x * width + 0.6, -frame)
        details.append((plank, dark))
    corner, far = np.array([frame, -height + frame]), np.array([width - frame, -frame])
    across = np.array([1.6, 0.0])
    details.append((np.stack([corner, corner + across, far, far - across]), dark))
    return Layer(
        name="box",
        matrix=affine(0, (pose.travel + 0.29 * look.height, -pose.depth)),
        outline=rectangle(0, -height, width, 0),
        colour=wood,
        details=tuple(details),
        grain=0.12,
    )


def _backpack(look: Look, matrices: dict[str, np.ndarray]) -> Layer:
    torso, width = TORSO * look.height, look.height * look.build
    outline = np.array([(-0.2, -0.9), (-0.6, -1.0), (-1.9, -0.8), (-2.1, -0.15), (-0.4, -0.12)])
    pocket = np.array([(-0.9, -0.5), (-1.85, -0.5), (-1.95, -0.22), (-0.9, -0.22)])
    strap = np.array([(-0.2, -0.9), (0.45, -0.86), (0.45, -0.62), (-0.2, -0.5)])
    scale = np.array([0.07 * width, torso])
    return Layer(
        name="backpack",
        matrix=matrices["torso"],
        outline=np.concatenate([outline, strap[[3, 2, 1]]]) * scale,
        colour=(24, 150, 60),
        details=((pocket * scale, (52, 190, 88)),),
        grain=0.08,
    )


def _at_foot(action: str, look: Look, matrices: dict[str, np.ndarray]) -> Layer:
    radius = 0.095 * look.height
    spot = ellipse((-0.35 * radius, -0.35 * radius), 0.35 * radius, 0.35 * radius)
    seam = rectangle(-0.85 * radius, -0.09 * radius, 0.85 * radius, 0.09 * radius)
    ball: tuple[Colour, Colour, Colour] = ((250, 176, 0), (255, 226, 110), (176, 104, 0))
    pad: tuple[Colour, Colour, Colour] = ((34, 34, 40), (84, 86, 94), (14, 14, 18))
    colour, shine, line = ball if action == "KickBall" else pad
    return Layer(
        name="foot_prop",
        matrix=exact.compose(
            matrices["near_foot"], affine(0, np.array([0.1, -0.055]) * look.height)
        ),
        outline=ellipse((0, 0), radius, radius),
        colour=colour,
        details=((seam, line), (spot, shine)),
        grain=0.06,
    )


def _in_hand(action: str, look: Look, matrices: dict[str, np.ndarray]) -> Layer:
    width, height = 0.062 * look.height, 0.084 * look.height
    hand = transform(matrices["near_forearm"], np.array([0, FOREARM * look.height]))
    rim = rectangle(-width, -height, width, -0.72 * height)
    middle = rectangle(-0.62 * width, -0.5 * height, 0.62 * width, 0.7 * height)
    cup: tuple[Colour, Colour, Colour] = ((216, 16, 28), (250, 236, 232), (240, 52, 52))
    phone: tuple[Colour, Colour, Colour] = ((18, 18, 24), (66, 70, 80), (34, 40, 54))
    colour, edge, face = cup if action == "Drink" else phone
    return Layer(
        name="hand_prop",
        matrix=affine(0.12, hand + np.array([0.045, -0.035]) * look.height),
        outline=rectangle(-width, -height, width, height),
        colour=colour,
        details=((rim, edge), (middle, face)),
        grain=0.04,
    )
