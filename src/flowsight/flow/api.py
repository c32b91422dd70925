"""The face of optical flow: methods, presets and backends behind three functions.

TV-L1 is Zach, Pock and Bischof's duality-based method as OpenCV runs it (Sanchez, Meinhardt-Llopis
and Facciolo, "TV-L1 Optical Flow Estimation", IPOL 2013). DIS and Farneback come from plain
OpenCV. Frames are grey; flow is (2, H, W): u to the right, v downwards, px per frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import cv2
import numpy as np

from flowsight.errors import InputError

METHODS = ("tvl1", "dis", "farneback")
BACKENDS = ("opencv",)
MIN_SIDE_PX = 12

Solver = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(H, W) and (H, W) to (H, W, 2) float32."""


@dataclass(frozen=True, kw_only=True)
class TVL1Options:
    """Numbers of TV-L1; the defaults are OpenCV's (`DualTVL1OpticalFlow`)."""

    tau: float = 0.25
    """Time step of the dual problem; stable up to 0.25."""
    lambda_: float = 0.15
    """Weight of the data term; smaller is smoother."""
    theta: float = 0.3
    """Coupling between data term and smoothness."""
    num_scales: int = 5
    """Levels of the pyramid (fewer where the frame is small)."""
    num_warps: int = 5
    """Linearisations on each level."""
    epsilon: float = 0.01
    """Stop when the RMS update is below this many px; 0 never stops early."""
    inner_iterations: int = 30
    """Iterations between two median filters."""
    outer_iterations: int = 10
    """Blocks of inner iterations in a warp."""
    scale_step: float = 0.8
    """Size of each level relative to the finer one."""
    median_filtering: int = 5
    """Side of the median filter: 1 (none), 3 or 5."""

    def __post_init__(self) -> None:
        for name in ("tau", "lambda_", "theta"):
            _check_option(getattr(self, name) > 0, name, "positive", getattr(self, name))
        for name in ("num_scales", "num_warps", "inner_iterations", "outer_iterations"):
            value = getattr(self, name)
            _check_option(isinstance(value, int) and value >= 1, name, "a whole number > 0", value)
        _check_option(self.epsilon >= 0, "epsilon", "0 or more", self.epsilon)
        _check_option(0 < self.scale_step < 1, "scale_step", "in (0, 1)", self.scale_step)
        known = self.median_filtering in (1, 3, 5)
        _check_option(known, "median_filtering", "1, 3 or 5", self.median_filtering)


def _check_option(ok: bool, name: str, expected: str, value: object) -> None:
    if not ok:
        raise InputError(f"expected TV-L1's {name} to be {expected}, got {value!r}")


PRESETS = {
    "opencv": TVL1Options(),
    # equal end-point error on synthetic flow at a small part of the work (measured)
    "fast": TVL1Options(scale_step=0.5, num_warps=3, inner_iterations=30, outer_iterations=1),
}


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
        preset: `opencv` (its defaults) or `fast` (about the same end-point error, far less work).
        backend: `opencv`, or `auto` for the best there is.
        overrides: single numbers of the preset, by their names in `TVL1Options`.

    Returns:
        (2, H, W) or (N, 2, H, W) float32, px per frame.

    Raises:
        InputError: other frames, an unknown preset, backend or override, or an OpenCV
            without the contrib modules.
    """
    return _apply(_tvl1_solver(preset, backend, overrides), previous, following)


def tvl1_clip(
    frames: Iterable[np.ndarray],
    *,
    preset: str = "opencv",
    backend: str = "auto",
    **overrides: Any,
) -> Iterator[np.ndarray]:
    """TV-L1 optical flow of a whole clip, frame by frame.

    Args:
        frames: grey (H, W) frames as for `tvl1`; read one at a time.
        preset, backend, overrides: as for `tvl1`.

    Returns:
        Iterator over (2, H, W) float32: one field fewer than frames.

    Raises:
        InputError: as `tvl1`; wrong settings are found before the first frame is read.
    """
    return _clip(_tvl1_solver(preset, backend, overrides), frames)


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
        preset: TV-L1's; the other methods have none and disregard it.
        backend: `opencv` or `auto`.

    Returns:
        (2, H, W) or (N, 2, H, W) float32, px per frame.

    Raises:
        InputError: as `tvl1`, or an unknown method.
    """
    return _apply(_solver(method, preset, backend), previous, following)


def compute_clip(
    frames: Iterable[np.ndarray], *, method: str, preset: str = "opencv", backend: str = "auto"
) -> Iterator[np.ndarray]:
    """Optical flow of a whole clip by any of the methods: see `tvl1_clip` and `compute`."""
    return _clip(_solver(method, preset, backend), frames)


def check_settings(*, method: str, preset: str, backend: str) -> None:
    """Raise InputError unless these settings can run here."""
    _solver(method, preset, backend)


def _solver(method: str, preset: str, backend: str) -> Solver:
    if method == "tvl1":
        return _tvl1_solver(preset, backend, {})
    _check_backend(backend)
    if method == "dis":
        return _dis
    if method == "farneback":
        return _farneback
    raise InputError(f"expected a flow method of {', '.join(METHODS)}, got {method!r}")


def _tvl1_solver(preset: str, backend: str, overrides: dict[str, Any]) -> Solver:
    _check_backend(backend)
    options = _options(preset, overrides)
    if not hasattr(getattr(cv2, "optflow", None), "DualTVL1OpticalFlow"):
        raise InputError(
            f"expected an OpenCV with the contrib modules for TV-L1, got plain OpenCV"
            f" {cv2.__version__}; install opencv-contrib-python-headless in its place,"
            f" or use the methods dis or farneback"
        )

    def solve(previous: np.ndarray, following: np.ndarray) -> np.ndarray:
        # one object per call: it holds buffers, and frames are solved in parallel threads
        return _opencv_tvl1(options).calc(previous, following, None)

    return solve


def _opencv_tvl1(options: TVL1Options) -> Any:
    return cv2.optflow.DualTVL1OpticalFlow.create(
        tau=options.tau,
        lambda_=options.lambda_,
        theta=options.theta,
        nscales=options.num_scales,
        warps=options.num_warps,
        epsilon=options.epsilon,
        innnerIterations=options.inner_iterations,  # OpenCV spells it with three n
        outerIterations=options.outer_iterations,
        scaleStep=options.scale_step,
        medianFiltering=options.median_filtering,
    )


def _dis(previous: np.ndarray, following: np.ndarray) -> np.ndarray:
    solver: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return solver.calc(_as_uint8(previous), _as_uint8(following), None)


def _farneback(previous: np.ndarray, following: np.ndarray) -> np.ndarray:
    # pyramid step, levels, window, iterations, neighbourhood and sigma of OpenCV's own example
    numbers = (0.5, 3, 15, 3, 5, 1.2, 0)
    flow = np.zeros((*previous.shape, 2), np.float32)
    return cv2.calcOpticalFlowFarneback(_as_uint8(previous), _as_uint8(following), flow, *numbers)


def _as_uint8(frame: np.ndarray) -> np.ndarray:
    return frame if frame.dtype == np.uint8 else np.rint(frame * 255).astype(np.uint8)


def _check_backend(backend: str) -> None:
    if backend not in ("auto", *BACKENDS):
        available = ", ".join(BACKENDS)
        raise InputError(f"flow backend {backend!r} is not available; use auto or {available}")


def _options(preset: str, overrides: dict[str, Any]) -> TVL1Options:
    if preset == "cuda":
        raise InputError(
            "the preset 'cuda' (what OpenCV's CUDA class computes) cannot be run by the backend"
            " opencv; use the preset opencv or fast"
        )
    if preset not in PRESETS:
        raise InputError(f"expected a TV-L1 preset of {', '.join(PRESETS)}, got {preset!r}")
    allowed = [field.name for field in fields(TVL1Options)]
    for name, value in overrides.items():
        if name not in allowed:
            raise InputError(f"unknown TV-L1 option {name!r}; known: {', '.join(allowed)}")
        _check_option(isinstance(value, (int, float)), name, "a number", value)
    return replace(PRESETS[preset], **overrides)


def _clip(solver: Solver, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    previous = None
    for frame in frames:
        if previous is not None:
            yield _apply(solver, previous, frame)
        previous = frame


def _apply(solver: Solver, previous: np.ndarray, following: np.ndarray) -> np.ndarray:
    _check_frames(previous, following)
    if previous.ndim == 2:
        return _solve(solver, previous, following)
    flow = np.empty((len(previous), 2, *previous.shape[1:]), np.float32)
    for index in range(len(previous)):
        flow[index] = _solve(solver, previous[index], following[index])
    return flow


def _solve(solver: Solver, previous: np.ndarray, following: np.ndarray) -> np.ndarray:
    flow = solver(np.ascontiguousarray(previous), np.ascontiguousarray(following))
    return np.ascontiguousarray(flow.transpose(2, 0, 1))


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
