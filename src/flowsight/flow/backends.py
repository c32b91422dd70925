"""Who computes flow: the engines of TV-L1, and OpenCV's other methods, behind one signature."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flowsight.errors import InputError
from flowsight.flow.tvl1_numbers import PRESETS, Numbers, check_not_exact, read_numbers

METHODS = ("tvl1", "dis", "farneback")
BACKENDS = ("cpu", "torch", "gpu", "opencv")

Solver = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(N, H, W) and (N, H, W), checked, to (N, 2, H, W) float32."""


def solver(
    method: str, preset: str, backend: str, *, threads: int | None, overrides: Mapping[str, Any]
) -> Solver:
    """The solver of these settings.

    Args:
        method: of `METHODS`.
        preset: of `tvl1_numbers.PRESETS`; the other methods have none and disregard it.
        backend: of `BACKENDS`, or `auto`; the other methods are OpenCV's whatever it says.
        threads: frame pairs that the C engine solves at once; None: as many as cores.
        overrides: numbers of TV-L1 that differ from the preset's.

    Raises:
        InputError: unknown settings, or an engine that is not here.
    """
    if method not in METHODS:
        raise InputError(f"expected a flow method of {', '.join(METHODS)}, got {method!r}")
    if backend not in ("auto", *BACKENDS):
        raise InputError(f"expected a flow backend of auto, {', '.join(BACKENDS)}, got {backend!r}")
    if method != "tvl1":
        return _one_by_one(_dis if method == "dis" else _farneback)
    numbers = preset_numbers(preset, overrides)
    chosen = best_backend() if backend == "auto" else backend
    if chosen == "opencv":
        return _one_by_one(_opencv(numbers))
    if chosen == "gpu":
        check_not_exact(numbers)
    return functools.partial(_engine(chosen), numbers=_mapping(numbers), **_extra(chosen, threads))


def preset_numbers(preset: str, overrides: Mapping[str, Any]) -> Numbers:
    """Numbers of a preset with some replaced.

    Raises:
        InputError: an unknown preset or name, or a value that no solver can run with.
    """
    if preset not in PRESETS:
        raise InputError(f"expected a TV-L1 preset of {', '.join(PRESETS)}, got {preset!r}")
    return read_numbers({**PRESETS[preset], **overrides})


def best_backend() -> str:
    """What `auto` stands for: the GPU if there is one, else the C engine, else torch."""
    # asking torch costs three seconds; without the driver's file there is no GPU to ask for
    if Path("/dev/nvidia0").exists() and _module("gpu").available():
        return "gpu"
    if _module("cpu").available():
        return "cpu"
    warnings.warn(
        "the C engine of TV-L1 is not built here; the torch engine serves, tens of times slower "
        "(install the package again where there is a C compiler)",
        stacklevel=3,
    )
    return "torch"


def _module(backend: str) -> Any:
    # by name: torch must not be loaded, or even seem to be, where another engine is asked for
    return importlib.import_module(f"flowsight.flow.tvl1_{backend}")


def _engine(backend: str) -> Callable[..., np.ndarray]:
    module = _module(backend)
    if backend == "gpu" and not module.available():
        raise InputError("expected a GPU and Triton for flow.backend gpu, found none; use cpu")
    if backend == "cpu" and not module.available():
        raise InputError(
            "expected the C engine of TV-L1 built from this source for flow.backend cpu, found "
            "none; install a C compiler and the package again (pip install -e .), or choose "
            "flow.backend torch or opencv"
        )
    solve: Callable[..., np.ndarray] = module.solve
    return solve


def _extra(backend: str, threads: int | None) -> dict[str, Any]:
    return {"threads": threads} if backend == "cpu" else {}


def _mapping(numbers: Numbers) -> dict[str, object]:
    return dict(vars(numbers))


def _one_by_one(solve: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Solver:
    """A solver of batches from one of single pairs, (H, W) x 2 to (H, W, 2)."""

    def batch(previous: np.ndarray, following: np.ndarray) -> np.ndarray:
        flow = np.empty((len(previous), 2, *previous.shape[1:]), np.float32)
        for index, pair in enumerate(zip(previous, following, strict=True)):
            flow[index] = solve(*map(np.ascontiguousarray, pair)).transpose(2, 0, 1)
        return flow

    return batch


def _opencv(numbers: Numbers) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    if numbers.semantics != "cpu":
        raise InputError(
            "the preset 'cuda' (what OpenCV's CUDA class computes) cannot be run by the backend "
            "opencv; use the backend cpu, torch or gpu, or the preset opencv"
        )
    if not hasattr(getattr(cv2, "optflow", None), "DualTVL1OpticalFlow"):
        raise InputError(
            f"expected an OpenCV with the contrib modules for TV-L1, got plain OpenCV"
            f" {cv2.__version__}; install opencv-contrib-python-headless in its place,"
            f" or use another backend"
        )
    # one object per call: it holds buffers, and frames are solved in parallel threads
    return lambda previous, following: opencv_tvl1(numbers).calc(previous, following, None)


def opencv_tvl1(numbers: Numbers) -> Any:
    """OpenCV's own TV-L1 object with these numbers."""
    return cv2.optflow.DualTVL1OpticalFlow.create(
        tau=numbers.tau,
        lambda_=numbers.lambda_,
        theta=numbers.theta,
        nscales=numbers.num_scales,
        warps=numbers.num_warps,
        epsilon=numbers.epsilon,
        innnerIterations=numbers.inner_iterations,  # OpenCV spells it with three n
        outerIterations=numbers.outer_iterations,
        scaleStep=numbers.scale_step,
        medianFiltering=numbers.median_filtering,
    )


def _dis(previous: np.ndarray, following: np.ndarray) -> np.ndarray:
    method: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return method.calc(_as_uint8(previous), _as_uint8(following), None)


def _farneback(previous: np.ndarray, following: np.ndarray) -> np.ndarray:
    # pyramid step, levels, window, iterations, neighbourhood and sigma of OpenCV's own example
    numbers = (0.5, 3, 15, 3, 5, 1.2, 0)
    flow = np.zeros((*previous.shape, 2), np.float32)
    return cv2.calcOpticalFlowFarneback(_as_uint8(previous), _as_uint8(following), flow, *numbers)


def _as_uint8(frame: np.ndarray) -> np.ndarray:
    return frame if frame.dtype == np.uint8 else np.rint(frame * 255).astype(np.uint8)
