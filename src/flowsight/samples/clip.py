"""One action clip: the frames, and the exact truth about them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from flowsight.samples import actions, background, exact, figure, layers

KEYPOINTS = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
"""COCO's order."""

_BEHIND = ("far_eye", "far_ear")
"""Joints of the head that a side view never shows."""
_CLOTHED = {"near_hip": "torso"}
"""Joints seen through what is drawn over them: a shirt over the hip hides nothing."""

_NOISE = 1.6
"""Standard deviation of the camera's noise, grey levels."""


@dataclass(frozen=True, kw_only=True)
class Take:
    """What the two classes of a pair share: actor, place, and the chances of one recording."""

    look: figure.Look
    background: background.Background
    facing: int
    """+1 right, -1 left."""
    centre: tuple[float, float]
    """Where the figure stands on the ground in the middle of the clip, pixels."""
    phase: float
    """Of the movement in the middle of the clip, radians."""
    glide: float = 1.0
    """Factor on the way covered, below 1 in long clips: the camera follows the figure."""
    drift: float
    """Background motion, pixels per frame, right positive."""
    shape: tuple[int, int]
    """(H, W) of the frame."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A rendered clip."""

    frames: np.ndarray
    """(T, H, W, 3) uint8 RGB."""
    masks: np.ndarray
    """(T, H, W) bool: the actor and what he holds, moves or has at the foot."""
    boxes: np.ndarray
    """(T, 4) float32, x1 y1 x2 y2 around the mask, ends exclusive."""
    keypoints: np.ndarray
    """(T, 17, 3) float32: x, y, visibility (0 outside the frame, 1 hidden, 2 seen)."""
    flow: np.ndarray
    """(T - 1, 2, H, W) float16, pixels per frame."""


def stage_layers(
    action: str, take: Take, seconds: float
) -> tuple[list[layers.Layer], dict[str, tuple[np.ndarray, str]]]:
    """Parts and props on the screen at a time, back to front, and the joints on the screen."""
    pose = actions.pose_at(action, take.look, seconds, take.phase, take.glide)
    matrices = figure.skeleton(take.look, pose)
    parts = figure.figure_layers(take.look, matrices)
    held = {prop.after: prop.layer for prop in actions.props(action, take.look, pose, matrices)}
    ordered = []
    for name, part in parts.items():
        ordered.append(part)
        if name in held:
            ordered.append(held[name])
    x, y = take.centre
    screen = np.array([[take.facing, 0, x], [0, 1, y], [0, 0, 1]], np.float64)
    joints = figure.keypoints(take.look, matrices)
    return (
        [replace(layer, matrix=exact.compose(screen, layer.matrix)) for layer in ordered],
        {name: (exact.transform(screen, at), part) for name, (at, part) in joints.items()},
    )


def render(action: str, take: Take, num_frames: int, fps: float, rng: np.random.Generator) -> Clip:
    """Render one clip.

    Args:
        action: class name.
        take: actor, place and chances.
        num_frames: T.
        fps: frames per second; motion per frame follows from it.
        rng: for the camera's noise.
    """
    middle = (num_frames - 1) / 2
    stages = [stage_layers(action, take, (index - middle) / fps) for index in range(num_frames)]
    frames, labels = [], []
    for index, (parts, _) in enumerate(stages):
        place = background.view(take.background, take.drift * (index - middle), take.shape[1])
        place = _cast_shadow(place, parts)
        image, seen = layers.composite(place, parts)
        noisy = image + rng.normal(0, _NOISE, image.shape)
        frames.append(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
        labels.append(seen)
    still = background.flow_of(take.background, take.drift, take.shape)
    flow = [
        layers.exact_flow(labels[index], stages[index][0], stages[index + 1][0], still)
        for index in range(num_frames - 1)
    ]
    masks = np.stack(labels) >= 0
    points = [
        _keypoints(joints, parts, seen, take.facing)
        for (parts, joints), seen in zip(stages, labels, strict=True)
    ]
    return Clip(
        frames=np.stack(frames),
        masks=masks,
        boxes=np.stack([box_around(mask) for mask in masks]),
        keypoints=np.stack(points),
        flow=np.stack(flow).astype(np.float16),
    )


def box_around(mask: np.ndarray) -> np.ndarray:
    """x1 y1 x2 y2 (4,) float32 of a mask (H, W) bool, ends exclusive; zeros for an empty one."""
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return np.zeros(4, np.float32)
    edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    return np.array(edges, np.float32)


def _cast_shadow(image: np.ndarray, parts: list[layers.Layer]) -> np.ndarray:
    """Darken the floor below everything that stands on it."""
    outlines = [exact.transform(part.matrix, part.outline) for part in parts]
    ground = max(outline[:, 1].max() for outline in outlines)
    shadow = np.zeros(image.shape[:2], np.uint8)
    for part, outline in zip(parts, outlines, strict=True):
        if part.name.endswith(("foot", "box", "torso", "foot_prop")):
            x1, x2 = outline[:, 0].min(), outline[:, 0].max()
            lift = min(max(ground - outline[:, 1].max(), 0) / 12, 1)
            flat = layers.ellipse(((x1 + x2) / 2, ground - 1), 0.62 * (x2 - x1), 2.6 - lift)
            cv2.fillPoly(shadow, [np.rint(flat * 16).astype(np.int32)], 110, cv2.LINE_AA, 4)
    soft = cv2.GaussianBlur(shadow, (0, 0), 1.6).astype(np.float32) / 255
    return np.rint(image * (1 - soft[:, :, None])).astype(np.uint8)


def _keypoints(
    joints: dict[str, tuple[np.ndarray, str]],
    parts: list[layers.Layer],
    labels: np.ndarray,
    facing: int,
) -> np.ndarray:
    names = [part.name for part in parts]
    sides = {"right": "near", "left": "far"} if facing > 0 else {"right": "far", "left": "near"}
    table = np.zeros((len(KEYPOINTS), 3), np.float32)
    for row, name in enumerate(KEYPOINTS):
        side, _, joint = name.partition("_")
        body_name = f"{sides[side]}_{joint}" if joint else name
        (x, y), part = joints[body_name]
        column, line = round(float(x)), round(float(y))
        inside = 0 <= column < labels.shape[1] and 0 <= line < labels.shape[0]
        top = names[labels[line, column]] if inside and labels[line, column] >= 0 else ""
        carriers = () if body_name in _BEHIND else (part, _CLOTHED.get(body_name, part))
        table[row] = x, y, (2 if top in carriers else 1) if inside else 0
    return table
