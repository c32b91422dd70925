"""TV-L1 in torch: the readable reference, batched, on any device.

What it computes is OpenCV's TV-L1 (see `tvl1_numbers` for whose, `tvl1_steps` for the
equations): coarse to fine over a pyramid, on each level a few warps, in each warp iterations
until the frame's own flow stands still, the flow median filtered now and then.

On a CPU it rounds where OpenCV's CPU code rounds, so that it stops in the same iterations: with
OpenCV 5.0 on a CPU with fused multiply-adds it gave the same bits (seen on real clips, and over
sizes and numbers). A frame's result has the same bits whatever is in its batch. Speed is not its
job: see `tvl1_gpu` for a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import overload

import numpy as np
import torch
from torch import Tensor

from flowsight.errors import InputError
from flowsight.flow.tvl1_images import (
    centered_gradient,
    grey_levels,
    median_filter,
    pyramid,
    upsample_flow,
)
from flowsight.flow.tvl1_numbers import Numbers, read_numbers
from flowsight.flow.tvl1_steps import Linearised, iterate, linearise, stop


@overload
def solve(
    previous: np.ndarray,
    following: np.ndarray,
    *,
    numbers: Mapping[str, object],
    device: str = ...,
    batch_size: int = ...,
) -> np.ndarray: ...
@overload
def solve(
    previous: Tensor,
    following: Tensor,
    *,
    numbers: Mapping[str, object],
    device: str = ...,
    batch_size: int = ...,
) -> Tensor: ...
def solve(
    previous: np.ndarray | Tensor,
    following: np.ndarray | Tensor,
    *,
    numbers: Mapping[str, object],
    device: str = "cpu",
    batch_size: int = 16,
) -> np.ndarray | Tensor:
    """TV-L1 optical flow of N pairs of grey frames.

    Args:
        previous: (N, H, W), uint8, or float32 in [0, 1].
        following: same shape and type.
        numbers: names and values of `tvl1_numbers.Numbers` that differ from OpenCV's defaults;
            `{}` and `PRESETS["cuda"]` are whole presets.
        device: where to compute.
        batch_size: pairs in memory at once; changes no bit of the result.

    Returns:
        (N, 2, H, W) float32, u then v, px per frame: an array for arrays, and for tensors a
        tensor on `device`.

    Raises:
        InputError: other frames, or numbers that cannot be.
    """
    known = read_numbers(numbers)
    if previous.shape != following.shape or previous.dtype != following.dtype:
        got = f"{previous.dtype} {previous.shape} and {following.dtype} {following.shape}"
        raise InputError(f"expected two batches of the same shape and type, got {got}")
    parts = []
    with torch.inference_mode():
        for start in range(0, len(previous), batch_size):
            pair = [f[start : start + batch_size] for f in (previous, following)]
            parts.append(coarse_to_fine(*(grey_levels(f, device) for f in pair), numbers=known))
    empty = torch.empty((0, 2, *previous.shape[1:]), device=device)
    flow = torch.cat(parts) if parts else empty
    return flow.cpu().numpy() if isinstance(previous, np.ndarray) else flow


def coarse_to_fine(previous: Tensor, following: Tensor, *, numbers: Numbers) -> Tensor:
    """Flow (N, 2, H, W) of grey levels (N, H, W): each level starts from the coarser one's."""
    levels = list(zip(pyramid(previous, numbers), pyramid(following, numbers), strict=True))
    flow = torch.zeros_like(levels[-1][0])[:, None].repeat(1, 2, 1, 1)
    for level_previous, level_following in reversed(levels):
        height, width = level_previous.shape[1:]
        if flow.shape[2:] != (height, width):
            flow = upsample_flow(flow, (height, width), numbers)
        flow = solve_level(level_previous, level_following, flow, numbers)
    return flow


def solve_level(previous: Tensor, following: Tensor, flow: Tensor, numbers: Numbers) -> Tensor:
    """Flow (N, 2, H, W) after all warps on one level; the dual starts at 0 and is kept over them.

    Args:
        previous: (N, H, W), grey levels.
        following: same.
        flow: (N, 2, H, W) to start from, px.
    """
    images = torch.cat((following[:, None], centered_gradient(following)), 1)
    dual = torch.zeros_like(flow)[:, :, None].repeat(1, 1, 2, 1, 1)
    for _ in range(numbers.num_warps):
        plane = linearise(previous, images, flow, numbers)
        flow, dual = solve_warp(flow, dual, plane, numbers)
    return flow


def solve_warp(
    flow: Tensor, dual: Tensor, plane: Linearised, numbers: Numbers
) -> tuple[Tensor, Tensor]:
    """Flow and dual after one warp's iterations, every frame until its own stop.

    Only frames still active are computed: `live` are their places in the batch.
    """
    height, width = flow.shape[2:]
    limit_px2 = numbers.stop_threshold(height, width)
    done_flow, done_dual = flow.clone(), dual.clone()
    live = torch.arange(len(flow), device=flow.device)
    credit = torch.zeros(len(flow), dtype=torch.float64, device=flow.device)
    for iteration in range(numbers.outer_iterations * numbers.inner_iterations):
        if iteration % numbers.inner_iterations == 0:
            flow = median_filter(flow, numbers.median_filtering)
        flow, dual, error = iterate(flow, dual, plane, numbers)
        stopped, credit = stop(error, credit, iteration, limit_px2, numbers.semantics)
        if stopped.any():
            done_flow[live[stopped]], done_dual[live[stopped]] = flow[stopped], dual[stopped]
            go = ~stopped
            live, flow, dual, credit = live[go], flow[go], dual[go], credit[go]
            plane = Linearised(*(part[go] for part in plane))
            if not len(live):
                return done_flow, done_dual
    done_flow[live], done_dual[live] = flow, dual
    return done_flow, done_dual
