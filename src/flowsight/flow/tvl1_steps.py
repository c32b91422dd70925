"""TV-L1 in torch, the solver's side: linearise, threshold, divergence, dual update, stop.

For the flow u that minimises, over a frame, sum |grad u1| + |grad u2| + lambda |rho(u)|, with the
brightness difference linearised about the flow u0 of the last warp,

    rho(u) = I1(x + u0) + grad I1(x + u0) . (u - u0) - I0(x),

Zach, Pock and Bischof ("A Duality Based Approach for Realtime TV-L1 Optical Flow", DAGM 2007)
couple u to v by |u - v|^2 / (2 theta), and alternate

    v = u + threshold(rho(u))             (their equation 15, per pixel)
    u = v + theta div p                   (equation 10)
    p = (p + tau / theta grad u) / (1 + tau / theta |grad u|)     (equation 11, per component)

Axes: N frames, H rows, W columns. flow (N, 2, H, W): u, v in px. dual p (N, 2, 2, H, W): per
flow component, its x and y part, no unit, at most 1 long. Images in grey levels 0..255.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from flowsight.flow.tvl1_images import warp
from flowsight.flow.tvl1_numbers import Numbers

FLOAT32_EPSILON = torch.finfo(torch.float32).eps


class Linearised(NamedTuple):
    """The brightness difference of one warp as a plane over u: rho(u) = constant + gradient . u."""

    gradient: Tensor
    """(N, 2, H, W): warped gradient of the following frame, grey levels per px."""
    squared_norm: Tensor
    """(N, H, W): |gradient|^2."""
    constant: Tensor
    """(N, H, W): rho at u = 0, grey levels."""


def linearise(previous: Tensor, following: Tensor, flow: Tensor, numbers: Numbers) -> Linearised:
    """Warp the following frame and its gradient by the flow.

    Args:
        previous: I0, (N, H, W).
        following: I1 and its gradient along x and y, (N, 3, H, W).
        flow: u0, (N, 2, H, W).
        numbers: the bicubic kernel and border.
    """
    warped = warp(following, flow, numbers)
    image, ix, iy = warped.unbind(1)
    constant = image - ix * flow[:, 0] - iy * flow[:, 1] - previous
    return Linearised(warped[:, 1:], ix * ix + iy * iy, constant)


def threshold(flow: Tensor, plane: Linearised, limit: float) -> Tensor:
    """Soft threshold of the data term: the step (N, 2, H, W) from u to v, px.

    With g = gradient: limit g where rho < -limit |g|^2, -limit g where rho > limit |g|^2, and
    -rho g / |g|^2, which makes rho zero, between them (0 where there is no gradient).

    Args:
        flow: u.
        plane: the linearised brightness difference.
        limit: lambda theta.
    """
    gradient, squared_norm, constant = plane
    rho = constant + (gradient[:, 0] * flow[:, 0] + gradient[:, 1] * flow[:, 1])
    bound = limit * squared_norm
    inside = torch.where(squared_norm > FLOAT32_EPSILON, -rho / squared_norm, 0.0)
    factor = torch.where(rho > bound, -limit, inside)
    factor = torch.where(rho < -bound, limit, factor)
    return factor[:, None] * gradient


def forward_difference(flow: Tensor) -> Tensor:
    """(N, 2, H, W) -> (N, 2, 2, H, W): f(x + 1) - f(x) along x, then y; 0 at the far edge."""
    dx = F.pad(flow[..., :, 1:] - flow[..., :, :-1], (0, 1))
    dy = F.pad(flow[..., 1:, :] - flow[..., :-1, :], (0, 0, 0, 1))
    return torch.stack((dx, dy), 2)


def divergence(dual: Tensor) -> Tensor:
    """(N, 2, 2, H, W) -> (N, 2, H, W): backward differences, minus forward_difference's adjoint.

    Outside the near edge p is 0. At the far edge p stays 0 by itself, since grad u is 0 there.
    """
    px, py = dual.unbind(2)
    dx = px - F.pad(px[..., :, :-1], (1, 0))
    above = F.pad(py[..., :-1, :], (0, 0, 1, 0))
    total = dx + (py - above)
    # OpenCV adds in another order there
    total[..., 0] = px[..., 0] + py[..., 0] - above[..., 0]
    return total


def dual_update(dual: Tensor, flow: Tensor, step: float) -> Tensor:
    """p after one step of the fixed point iteration (equation 11).

    Args:
        dual: p, (N, 2, 2, H, W).
        flow: the new u, (N, 2, H, W).
        step: tau / theta.
    """
    slope = forward_difference(flow)
    x, y = slope.double().unbind(2)
    length = (x * x + y * y).sqrt().float()
    return (dual + step * slope) / (1 + step * length)[:, :, None]


def iterate(
    flow: Tensor, dual: Tensor, plane: Linearised, numbers: Numbers
) -> tuple[Tensor, Tensor, Tensor]:
    """One iteration: (new flow, new dual, error (N,): sum of |du|^2 over the frame, px^2)."""
    limit, theta = numbers.lambda_ * numbers.theta, numbers.theta
    new = flow + threshold(flow, plane, limit) + theta * divergence(dual)
    dual = dual_update(dual, new, numbers.tau / numbers.theta)
    change = (new - flow).square()
    return new, dual, frame_sum(change[:, 0] + change[:, 1])


def frame_sum(values: Tensor) -> Tensor:
    """(N, ...) -> (N,): float32 sum in an order that does not depend on the batch.

    On a CPU one value after the other, as OpenCV does (its rounding decides when a frame stops);
    elsewhere by halving.
    """
    values = values.flatten(1)
    if values.device.type == "cpu":
        return torch.from_numpy(np.add.accumulate(values.numpy(), axis=1)[:, -1].copy())
    return sum_by_halving(values)


def sum_by_halving(values: Tensor) -> Tensor:
    """(N, M) -> (N,)."""
    while values.shape[1] > 1:
        odd = values[:, -1:] if values.shape[1] % 2 else None
        half = values.shape[1] // 2
        values = values[:, :half] + values[:, half : 2 * half]
        if odd is not None:
            values[:, :1] += odd
    return values[:, 0]


def stop(
    error: Tensor, credit: Tensor, iteration: int, threshold_px2: float, semantics: str
) -> tuple[Tensor, Tensor]:
    """Which frames are done after an iteration.

    Args:
        error: (N,) sum of |du|^2.
        credit: (N,) float64, state of the `cuda` rule, 0 at the start of a warp.
        iteration: counted from 0 in the warp.
        threshold_px2: epsilon^2 H W.
        semantics: `cpu` tests each iteration; `cuda` in odd ones in which the credit is used up.

    Returns:
        (N,) bool, and the new credit.
    """
    if semantics == "cpu":
        # written so that NaN stops
        return ~(error > threshold_px2), credit
    tested = (credit < threshold_px2) & (iteration % 2 == 1)
    left = torch.where(tested, error.double(), credit - threshold_px2)
    return tested & ~(error > threshold_px2), left
