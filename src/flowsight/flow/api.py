"""The face of optical flow: methods, presets and backends behind a few functions.

TV-L1 is Zach, Pock and Bischof's duality-based method as OpenCV runs it (Sanchez, Meinhardt-Llopis
and Facciolo, "TV-L1 Optical Flow Estimation", IPOL 2013). DIS and Farneback come from plain
OpenCV. Frames are grey; flow is (2, H, W): u to the right, v downwards, px per frame.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from flowsight.errors import InputError
from flowsight.flow.backends import Solver, best_backend, solver

MIN_SIDE_PX = 12


def tvl1(
    previous: np.ndarray,
    following: np.ndarray,
    *,
    preset: str = "opencv",
    backend: str = "auto",
    **overrides: Any,
) -> np.ndarray:
    """TV-L1 optical flow between two frames, or between N pairs.

    Args:
        previous: grey (H, W) or (N, H, W), uint8, or float32 in [0, 1]; at least 12 px a side.
        following: same shape and type.
        preset: `opencv` (defaults of `DualTVL1OpticalFlow`), `cuda` (OpenCV's CUDA class: what
            denseflow's users have) or `fast` (about the same end-point error, far less work).
        backend: `cpu` (C), `torch`, `gpu` (Triton), `opencv`, or `auto` for the best there is.
        overrides: single numbers of the preset, by their names in `tvl1_numbers.Numbers`.

    Returns:
        (2, H, W) or (N, 2, H, W) float32, px per frame.

    Raises:
        InputError: other frames, an unknown preset, backend or override, or an engine that is
            not here.
    """
    found = solver("tvl1", preset, backend, threads=None, overrides=overrides)
    return _apply(found, previous, following)


def tvl1_clip(
    frames: Iterable[np.ndarray],
    *,
    preset: str = "opencv",
    backend: str = "auto",
    **overrides: Any,
) -> Iterator[np.ndarray]:
    """TV-L1 optical flow of a whole clip, in bounded memory.

    Args:
        frames: grey (H, W) frames as for `tvl1`; read as many ahead as the backend solves at once.
        preset, backend, overrides: as for `tvl1`.

    Returns:
        Iterator over (2, H, W) float32: one field fewer than frames.

    Raises:
        InputError: as `tvl1`; wrong settings are found before the first frame is read.
    """
    backend = best_backend() if backend == "auto" else backend
    found = solver("tvl1", preset, backend, threads=None, overrides=overrides)
    return _clip(found, frames, _pairs_at_once("tvl1", backend, None))


def compute(
    previous: np.ndarray,
    following: np.ndarray,
    *,
    method: str,
    preset: str = "opencv",
    backend: str = "auto",
) -> np.ndarray:
    """Optical flow by any of the methods.

    Args:
        previous: as for `tvl1` (DIS and Farneback work on float frames rounded to uint8).
        following: same shape and type.
        method: `tvl1`, `dis` (medium preset) or `farneback`.
        preset, backend: TV-L1's, as for `tvl1`; the other methods have none and disregard them.

    Returns:
        (2, H, W) or (N, 2, H, W) float32, px per frame.

    Raises:
        InputError: as `tvl1`, or an unknown method.
    """
    found = solver(method, preset, backend, threads=None, overrides={})
    return _apply(found, previous, following)


def compute_clip(
    frames: Iterable[np.ndarray],
    *,
    method: str,
    preset: str = "opencv",
    backend: str = "auto",
    threads: int | None = None,
) -> Iterator[np.ndarray]:
    """Optical flow of a whole clip by any of the methods: see `tvl1_clip` and `compute`.

    Args:
        threads: frame pairs that the C engine solves at once; 1 where clips run side by side.
    """
    if method == "tvl1" and backend == "auto":
        backend = best_backend()
    found = solver(method, preset, backend, threads=threads, overrides={})
    return _clip(found, frames, _pairs_at_once(method, backend, threads))


def check_settings(*, method: str, preset: str, backend: str) -> None:
    """Raise InputError unless these settings can run here."""
    solver(method, preset, backend, threads=None, overrides={})


def _pairs_at_once(method: str, backend: str, threads: int | None) -> int:
    if method != "tvl1":
        return 1
    cores = threads or os.cpu_count() or 1
    return {"cpu": cores, "torch": 16, "gpu": 64}.get(backend, 1)


def _clip(solve: Solver, frames: Iterable[np.ndarray], at_once: int) -> Iterator[np.ndarray]:
    pairs = itertools.pairwise(frames)
    while piece := list(itertools.islice(pairs, at_once)):
        for previous, following in piece:
            _check_frames(previous, following)
        if len({previous.shape for previous, _ in piece}) > 1:
            shapes = sorted({previous.shape for previous, _ in piece})
            raise InputError(f"expected frames of one size in a clip, got {shapes}")
        yield from solve(*(np.stack(side) for side in zip(*piece, strict=True)))


def _apply(solve: Solver, previous: np.ndarray, following: np.ndarray) -> np.ndarray:
    _check_frames(previous, following)
    if previous.ndim == 2:
        return solve(previous[None], following[None])[0]
    return solve(previous, following)


def _check_frames(previous: np.ndarray, following: np.ndarray) -> None:
    for frame in (previous, following):
        if not isinstance(frame, np.ndarray) or frame.ndim not in (2, 3):
            got = getattr(frame, "shape", type(frame).__name__)
            raise InputError(f"expected grey frames (H, W) or (N, H, W), got {got}")
        if min(frame.shape[-2:]) < MIN_SIDE_PX:
            hint = "; convert RGB to grey first" if frame.shape[-1] in (3, 4) else ""
            raise InputError(f"expected grey frames of >= 12 px a side, got {frame.shape}{hint}")
        _check_values(frame)
    if previous.shape != following.shape or previous.dtype != following.dtype:
        got = f"{previous.dtype} {previous.shape} and {following.dtype} {following.shape}"
        raise InputError(f"expected two frames of the same shape and type, got {got}")


def _check_values(frame: np.ndarray) -> None:
    if frame.dtype == np.uint8:
        return
    if frame.dtype != np.float32:
        raise InputError(f"expected frames as uint8, or float32 in [0, 1], got {frame.dtype}")
    # written so that NaN is refused too
    if frame.size and not (frame.min() >= 0 and frame.max() <= 1):
        low, high = float(frame.min()), float(frame.max())
        raise InputError(f"expected float32 frames in [0, 1], got {low:g}..{high:g}; divide by 255")
