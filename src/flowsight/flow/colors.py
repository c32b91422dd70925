"""Flow as colours: hue is the direction, saturation the length.

The wheel of Baker et al., "A Database and Evaluation Methodology for Optical Flow" (IJCV 2011),
which every paper on optical flow shows.
"""

from __future__ import annotations

import functools

import numpy as np

# steps between the wheel's six colours: red, yellow, green, cyan, blue, magenta
_STEPS = (15, 6, 4, 11, 13, 6)
_CORNERS = ((255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255))


def flow_to_rgb(flow: np.ndarray, longest_px: float) -> np.ndarray:
    """Colours of a flow field.

    Args:
        flow: (2, H, W) float, px per frame: u to the right, then v downwards.
        longest_px: the length that is fully saturated; longer vectors are shown darker.

    Returns:
        (H, W, 3) uint8 RGB; no motion is white.
    """
    u, v = (component.astype(np.float64) / longest_px for component in flow)
    length = np.hypot(u, v)
    wheel = color_wheel()
    at = (np.arctan2(-v, -u) / np.pi + 1) / 2 * (len(wheel) - 1)
    low = np.floor(at).astype(int)
    share = (at - low)[..., None]
    hue = (1 - share) * wheel[low] + share * wheel[(low + 1) % len(wheel)]
    inside = (length <= 1)[..., None]
    color = np.where(inside, 1 - length[..., None] * (1 - hue), hue * 0.75)
    return np.floor(255 * color).astype(np.uint8)


@functools.cache
def color_wheel() -> np.ndarray:
    """(55, 3) float RGB in [0, 1], from red through yellow, green, cyan, blue and magenta."""
    pieces = []
    for index, steps in enumerate(_STEPS):
        start, end = np.array(_CORNERS[index]), np.array(_CORNERS[(index + 1) % 6])
        ramp = np.floor(255 * np.arange(steps) / steps)[:, None]
        pieces.append(np.where(end > start, ramp, np.where(end < start, 255 - ramp, start)))
    return np.concatenate(pieces) / 255


def legend(side: int) -> np.ndarray:
    """The wheel as a picture: each point has the colour of the vector from the centre to it.

    Args:
        side: px.

    Returns:
        (side, side, 3) uint8 RGB, white outside the circle.
    """
    axis = np.linspace(-1, 1, side)
    flow = np.stack(np.meshgrid(axis, axis)).astype(np.float32)
    colors = flow_to_rgb(flow, 1.0)
    colors[np.hypot(*flow) > 1] = 255
    return colors
