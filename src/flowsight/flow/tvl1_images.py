"""TV-L1 in torch, the image side: grey levels, resizing, gradient, warping, median.

Axes: N frames, C channels, H rows, W columns. Images are float32 in grey levels 0..255; flow is
(N, 2, H, W), u to the right, then v downwards, px. Every function gives a frame the same bits
whatever else is in its batch.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from flowsight.errors import InputError
from flowsight.flow.tvl1_numbers import Numbers, level_sizes


def grey_levels(frames: np.ndarray | Tensor, device: str | torch.device) -> Tensor:
    """Frames as grey levels on a device; a new tensor.

    Args:
        frames: (N, H, W), uint8, or float32 in [0, 1].
        device: where to.

    Returns:
        (N, H, W) float32, 0..255.

    Raises:
        InputError: other axes, another type, or float values outside [0, 1].
    """
    tensor = torch.tensor(frames) if isinstance(frames, np.ndarray) else frames
    if tensor.ndim != 3:
        got = tuple(tensor.shape)
        raise InputError(f"expected a batch of grey frames (N, H, W), got {got}")
    if tensor.dtype == torch.uint8:
        return tensor.to(device).to(torch.float32)
    if tensor.dtype != torch.float32:
        raise InputError(f"expected frames as uint8, or float32 in [0, 1], got {tensor.dtype}")
    # written so that NaN is refused too
    if tensor.numel() and not (tensor.min() >= 0 and tensor.max() <= 1):
        low, high = float(tensor.min()), float(tensor.max())
        raise InputError(f"expected float32 frames in [0, 1], got {low:g}..{high:g}")
    return tensor.to(device) * 255


def pyramid(image: Tensor, numbers: Numbers) -> list[Tensor]:
    """Levels of (N, H, W), finest first, each resized from the one before.

    The coordinate scale is exactly 1 / scale_step, not the ratio of the rounded sizes.
    """
    levels = [image]
    for size in level_sizes(image.shape[1], image.shape[2], numbers)[1:]:
        scale = 1 / numbers.scale_step
        levels.append(resize(levels[-1], size, (scale, scale), numbers.semantics))
    return levels


def upsample_flow(flow: Tensor, size: tuple[int, int], numbers: Numbers) -> Tensor:
    """Flow (N, 2, h, w) of a coarser level at the next finer level's (H, W), in its px.

    Here the coordinate scale is the ratio of the sizes; the vectors grow by 1 / scale_step.
    """
    scale = (flow.shape[2] / size[0], flow.shape[3] / size[1])
    larger = resize(flow.flatten(0, 1), size, scale, numbers.semantics)
    # in double, as OpenCV multiplies by a number
    larger = (larger.double() * (1 / numbers.scale_step)).float()
    return larger.unflatten(0, flow.shape[:2])


def resize(
    image: Tensor, size: tuple[int, int], scale: tuple[float, float], semantics: str
) -> Tensor:
    """Bilinear (N, H, W) -> (N, h, w).

    Args:
        image: any values.
        size: h, w.
        scale: source px per output px, along rows' axis H, then W.
        semantics: `cpu` samples at (x + 1/2) s - 1/2, `cuda` at x s; both repeat the edge.

    Returns:
        (N, h, w) float32.
    """
    for axis, length, step in ((2, size[1], scale[1]), (1, size[0], scale[0])):
        low, high, fraction = _taps(length, image.shape[axis], step, semantics)
        weight = torch.from_numpy(fraction).to(image.device)
        weight = weight if axis == 2 else weight[:, None]
        first = image.index_select(axis, torch.from_numpy(low).to(image.device))
        second = image.index_select(axis, torch.from_numpy(high).to(image.device))
        image = multiply_add(second - first, weight, first)
    return image


def multiply_add(a: Tensor, b: Tensor, c: Tensor | float) -> Tensor:
    """a b + c in float32 with one rounding, as the fused instructions OpenCV runs."""
    return (a.double() * b + c).float()


def _taps(
    length: int, source: int, step: float, semantics: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two source indices and the second's weight for each of `length` outputs."""
    outputs = np.arange(length, dtype=np.float64)
    if semantics == "cpu":
        position = (outputs + 0.5) * step - 0.5
    else:
        position = (outputs.astype(np.float32) * np.float32(step)).astype(np.float64)
    low = np.floor(position)
    fraction = (position - low).astype(np.float32)
    fraction[(low < 0) | (low >= source - 1)] = 0
    low = np.clip(low, 0, source - 1).astype(np.int64)
    return low, np.minimum(low + 1, source - 1), fraction


def centered_gradient(image: Tensor) -> Tensor:
    """(N, H, W) -> (N, 2, H, W): (I(x + 1) - I(x - 1)) / 2 along x, then y; the edge repeats."""
    wide = F.pad(image[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    dx = 0.5 * (wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2])
    dy = 0.5 * (wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1])
    return torch.stack((dx, dy), 1)


def warp(image: Tensor, flow: Tensor, numbers: Numbers) -> Tensor:
    """Backward warp: image at (x + u, y + v), bicubic.

    Args:
        image: (N, C, H, W).
        flow: (N, 2, H, W), px.
        numbers: give the kernel's A, and what lies outside: 0 (`cpu`) or the edge (`cuda`).

    Returns:
        (N, C, H, W) float32.
    """
    num, channels, height, width = image.shape
    x = torch.arange(width, device=flow.device, dtype=torch.float32) + flow[:, 0]
    y = torch.arange(height, device=flow.device, dtype=torch.float32)[:, None] + flow[:, 1]
    columns, weights_x = _bicubic_taps(x, width, numbers)
    rows, weights_y = _bicubic_taps(y, height, numbers)
    flat = image.reshape(num, channels, -1)
    total = torch.zeros_like(image)
    for row, weight_y in zip(rows, weights_y, strict=True):
        along = torch.zeros_like(image)
        for column, weight_x in zip(columns, weights_x, strict=True):
            index = (row * width + column).reshape(num, 1, -1).expand(-1, channels, -1)
            tap = flat.gather(2, index).view_as(image)
            along = multiply_add(tap, weight_x[:, None], along)
        total = multiply_add(along, weight_y[:, None], total)
    return total


def _bicubic_taps(
    position: Tensor, length: int, numbers: Numbers
) -> tuple[list[Tensor], list[Tensor]]:
    """Four source indices (int64) and weights around each position, both (N, H, W)."""
    first = position.floor()
    weights = bicubic_weights(position - first, numbers.bicubic_a)
    taps, valid = [], []
    for offset in (-1, 0, 1, 2):
        tap = first + offset
        valid.append((tap >= 0) & (tap < length))
        taps.append(tap.clamp(0, length - 1).to(torch.int64))
    if numbers.semantics == "cpu":
        weights = [w * ok for w, ok in zip(weights, valid, strict=True)]
    return taps, weights


def bicubic_weights(fraction: Tensor, a: float) -> list[Tensor]:
    """Keys' kernel (1981) at distances f + 1, f, 1 - f, 2 - f; sums to 1.

    w(d) = (a + 2) d^3 - (a + 3) d^2 + 1 for d <= 1, and a d^3 - 5 a d^2 + 8 a d - 4 a for d <= 2.
    Written and rounded as OpenCV 5 does (seen: the same bits).
    """
    f, g = fraction, 1 - fraction
    before = g * g * f * a
    slope = multiply_add(torch.full_like(f, a + 2), f, -(a + 3))
    near = multiply_add(slope, f * f, 1)
    after = f * f * g * a
    return [before, near, 1 - before - near - after, after]


def median_filter(image: Tensor, side: int) -> Tensor:
    """Median of the side x side window around each pixel; the edge repeats.

    With the window's columns sorted and then its rows, the value in row r, column c (from 1) has
    at least r c - 1 values not above it, and as many as (side + 1 - r)(side + 1 - c) - 1 not
    below it; most of the window is thereby excluded. Only minima and maxima of whole images are
    taken: on large tensors many times faster than stacking the windows and sorting.

    Args:
        image: (N, C, H, W).
        side: 1 (a copy), 3 or 5.

    Returns:
        (N, C, H, W).
    """
    height, width = image.shape[2:]
    margin = side // 2
    wide = F.pad(image, (margin,) * 4, mode="replicate")
    columns = [wide[:, :, r : r + height] for r in range(side)]
    _sort(columns)
    window = [[row[..., c : c + width] for c in range(side)] for row in columns]
    for row in window:
        _sort(row)
    middle = (side * side + 1) // 2
    candidates = [
        window[r][c]
        for r in range(side)
        for c in range(side)
        if (r + 1) * (c + 1) <= middle and (side - r) * (side - c) <= middle
    ]
    return _middle(candidates).clone()


def _exchange(values: list[Tensor], i: int, j: int) -> None:
    values[i], values[j] = torch.minimum(values[i], values[j]), torch.maximum(values[i], values[j])


def _sort(values: list[Tensor]) -> None:
    for last in range(len(values) - 1, 0, -1):
        for i in range(last):
            _exchange(values, i, i + 1)


def _middle(values: list[Tensor]) -> Tensor:
    """Median of an odd number of images: the extremes of any half + 2 of them are not it."""
    count = len(values) // 2 + 2
    held, waiting = values[:count], values[count:]
    while len(held) > 2:
        _extremes_to_ends(held)
        held = held[1:-1] + waiting[:1]
        waiting = waiting[1:]
    return held[0]


def _extremes_to_ends(held: list[Tensor]) -> None:
    count = len(held)
    for i in range(count // 2):
        _exchange(held, i, count - 1 - i)
    for i in range(1, (count + 1) // 2):
        _exchange(held, 0, i)
    for i in range(count // 2, count - 1):
        _exchange(held, i, count - 1)
