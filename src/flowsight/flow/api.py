"""The face of optical flow: methods, presets and backends behind a few functions.

TV-L1 is Zach, Pock and Bischof's duality-based method as OpenCV runs it (Sanchez, Meinhardt-Llopis
and Facciolo, "TV-L1 Optical Flow Estimation", IPOL 2013). DIS and Farneback come from plain
OpenCV. Frames are grey; flow is (2, H, W): u to the right, v downwards, px per frame.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from flowsight.errors import InputError
from flowsight.flow.backends import Solver, best_backend, preset_numbers, solver
from flowsight.flow.quantize import check_bound, quantize

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
        preset: `opencv` (defaults of `DualTVL1OpticalFlow`), `near` (the same but for rounding,
            1.5 times faster on the CPU), `cuda` (OpenCV's CUDA class: what denseflow's users have)
            or `fast` (about the same end-point error, far less work).
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
        InputError: as `tvl1`, or fewer than two frames; wrong settings are found before the first
            frame is read.
    """
    return _fields(frames, "tvl1", preset, backend, None, overrides)


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
        threads: frame pairs that the C engine solves at once; None: as many as cores.
    """
    return _fields(frames, method, preset, backend, threads, {})


def compute_levels(
    frames: Iterable[np.ndarray],
    *,
    method: str,
    preset: str = "opencv",
    backend: str = "auto",
    bound_px: float,
    threads: int | None = None,
) -> Iterator[np.ndarray]:
    """As `compute_clip`, in stored levels: `quantize` of every field, in one go by the C engine.

    Args:
        bound_px: displacements are clipped to +- this.

    Returns:
        Iterator over (2, H, W) uint8.

    Raises:
        InputError: as `compute_clip`, or a bound that is not positive.
    """
    check_bound(bound_px)
    return _fields(frames, method, preset, backend, threads, {}, bound_px)


def check_settings(*, method: str, preset: str, backend: str) -> None:
    """Raise InputError unless these settings can run here."""
    solver(method, preset, backend, threads=None, overrides={})


def _fields(
    frames: Iterable[np.ndarray],
    method: str,
    preset: str,
    backend: str,
    threads: int | None,
    overrides: Mapping[str, Any],
    bound_px: float | None = None,
) -> Iterator[np.ndarray]:
    """Flow of consecutive frames, float32 px, or uint8 levels where a bound is given."""
    if method == "tvl1" and backend == "auto":
        backend = best_backend()
    found = solver(method, preset, backend, threads=threads, overrides=overrides)
    checked = _alike(frames)
    if method == "tvl1" and backend == "cpu":
        # by name, as in `backends`: solves frame by frame, quantises on the way, copies nothing
        engine = importlib.import_module("flowsight.flow.tvl1_cpu")
        numbers = preset_numbers(preset, overrides)
        fields: Iterator[np.ndarray] = engine.solve_clip(
            checked, numbers=numbers, threads=threads, bound_px=bound_px
        )
        return fields
    at_once = {"torch": 16, "gpu": 64}.get(backend, 1) if method == "tvl1" else 1
    fields = _in_batches(found, checked, at_once)
    return fields if bound_px is None else (quantize(field, bound_px) for field in fields)


def _alike(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The frames of a clip, checked one by one."""
    first, count = None, 0
    for index, frame in enumerate(frames):
        if getattr(frame, "ndim", 2) != 2:
            hint = "; convert RGB to grey first" if frame.shape[-1] in (3, 4) else ""
            raise InputError(f"expected frames of a clip as grey (H, W), got {frame.shape}{hint}")
        first = frame if first is None else first
        try:
            _check_frames(first, frame)
        except InputError as error:
            raise InputError(f"frame {index}: {error}") from None
        yield frame
        count = index + 1
    if count < 2:
        raise InputError(f"expected a clip of at least 2 frames, got {count}")


def _in_batches(solve: Solver, frames: Iterator[np.ndarray], at_once: int) -> Iterator[np.ndarray]:
    pairs = itertools.pairwise(frames)
    while piece := list(itertools.islice(pairs, at_once)):
        yield from solve(*(np.stack(side) for side in zip(*piece, strict=True)))


def _apply(solve: Solver, previous: np.ndarray, following: np.ndarray) -> np.ndarray:
    _check_frames(previous, following)
    if len(previous) == 0:
        raise InputError(f"expected at least one pair of frames, got {previous.shape}")
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
