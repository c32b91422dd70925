"""TV-L1 on a GPU: the algorithm of `tvl1_torch` in fused Triton kernels, many frames at once.

One kernel per iteration does threshold, primal and dual update for all frames of a batch and
sums each frame's change; a second one, a program per frame, decides which frames go on. Frames
that stand still are skipped by a flag on the device. The host queues a few iterations at a time
(one CUDA graph) and looks at the flags some groups behind the device, so it never holds it up.

Needs a GPU and Triton to run, neither to be imported. With TRITON_INTERPRET=1 in the environment
it runs on a CPU, thousands of times slower: good for checking small frames.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from functools import lru_cache
from threading import Lock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from flowsight.errors import InputError
from flowsight.flow.tvl1_images import centered_gradient, grey_levels, pyramid, upsample_flow
from flowsight.flow.tvl1_launch import Launch, Level, Workspace
from flowsight.flow.tvl1_numbers import Numbers, check_not_exact, level_sizes, read_numbers

DEFAULT_LAUNCH = Launch()
ONE_AT_A_TIME = Lock()


def available() -> bool:
    """Whether this machine has a GPU and Triton."""
    return importlib.util.find_spec("triton") is not None and torch.cuda.is_available()


def solve(
    previous: np.ndarray | Tensor,
    following: np.ndarray | Tensor,
    *,
    numbers: Mapping[str, object],
    device: str = "cuda",
    batch_size: int = 64,
    launch: Launch = DEFAULT_LAUNCH,
) -> np.ndarray | Tensor:
    """TV-L1 optical flow of N pairs of grey frames.

    Args:
        previous: (N, H, W), uint8, or float32 in [0, 1].
        following: same shape and type.
        numbers: as for `tvl1_torch.solve`.
        device: a GPU (`cpu` under Triton's interpreter).
        batch_size: pairs on the device at once, about 7 MB each at 340 x 256; changes no bit of
            the result. 64 to 128 fill a large GPU.
        launch: how the kernels are cut and queued.

    Returns:
        (N, 2, H, W) float32, u then v, px per frame: an array for arrays, and for tensors a
        tensor on `device`.

    Raises:
        InputError: other frames, numbers that cannot be, or no GPU or Triton to run on.
    """
    known = read_numbers(numbers)
    check_not_exact(known)
    _check_device(device)
    if previous.shape != following.shape or previous.dtype != following.dtype:
        got = f"{previous.dtype} {previous.shape} and {following.dtype} {following.shape}"
        raise InputError(f"expected two batches of the same shape and type, got {got}")
    parts = []
    index = -1 if torch.device(device).type == "cpu" else torch.device(device).index
    with ONE_AT_A_TIME, torch.inference_mode(), torch.cuda.device(index):
        for start in range(0, len(previous), batch_size):
            pair = [f[start : start + batch_size] for f in (previous, following)]
            levels = [grey_levels(f, device) for f in pair]
            capacity = min(batch_size, 1 << (len(levels[0]) - 1).bit_length())
            parts.append(coarse_to_fine(*levels, numbers=known, capacity=capacity, launch=launch))
    empty = torch.empty((0, 2, *previous.shape[1:]), device=device)
    flow = torch.cat(parts) if parts else empty
    return flow.cpu().numpy() if isinstance(previous, np.ndarray) else flow


def release() -> None:
    """Free the device memory and graphs kept for more frames of the same size."""
    prepare.cache_clear()


def coarse_to_fine(
    previous: Tensor, following: Tensor, *, numbers: Numbers, capacity: int, launch: Launch
) -> Tensor:
    """Flow (N, 2, H, W) of grey levels (N, H, W), computed in a workspace of `capacity` frames."""
    num, height, width = previous.shape
    work, solvers = prepare(height, width, capacity, numbers, launch, str(previous.device))
    work.start(num)
    spare = (0, 0, 0, 0, 0, capacity - num)
    levels = [pyramid(F.pad(frames, spare), numbers) for frames in (previous, following)]
    flow = torch.zeros_like(levels[0][-1])[:, None].repeat(1, 2, 1, 1)
    for level_previous, level_following in reversed(list(zip(*levels, strict=True))):
        height, width = level_previous.shape[1:]
        if flow.shape[2:] != (height, width):
            flow = upsample_flow(flow, (height, width), numbers)
        level = solvers[height, width]
        flow = solve_level(work, level, level_previous, level_following, flow)
    return flow[:num]


def solve_level(
    work: Workspace, level: Level, previous: Tensor, following: Tensor, flow: Tensor
) -> Tensor:
    """Flow (N, 2, H, W) after all warps on one level: see `tvl1_torch.solve_level`."""
    images = torch.cat((following[:, None], centered_gradient(following)), 1).contiguous()
    level.set_flow(flow)
    for _ in range(work.numbers.num_warps):
        level.begin_warp(previous.contiguous(), images)
        _solve_warp(work, level)
    return level.flow()


def _solve_warp(work: Workspace, level: Level) -> None:
    """Queue a warp's iterations until all frames have stopped, or to the last one."""
    numbers = work.numbers
    for _ in range(numbers.outer_iterations):
        level.filter_flow()
        left = numbers.inner_iterations
        while left > 0:
            count = min(left, work.launch.group)
            level.iterate(count)
            left -= count
            if work.all_stopped():
                return


def _check_device(device: str) -> None:
    if importlib.util.find_spec("triton") is None:
        raise InputError("expected Triton for TV-L1 on a GPU, got none; install triton")
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if torch.device(device).type == "cpu" and not interpreted:
        raise InputError("expected a GPU for this TV-L1 engine, got the device cpu; use torch")
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise InputError("expected a GPU for TV-L1, found none; use another backend")


@lru_cache(maxsize=2)
def prepare(
    height: int, width: int, capacity: int, numbers: Numbers, launch: Launch, device: str
) -> tuple[Workspace, dict[tuple[int, int], Level]]:
    """Memory for `capacity` frames of a size, and a solver by (H, W) of each pyramid level; kept.

    Made once per size, since graphs hold on to their memory.
    """
    work = Workspace(height, width, capacity, numbers, launch, device)
    return work, {size: Level(work, *size) for size in level_sizes(height, width, numbers)}
