"""Numbers of TV-L1 and their presets, shared by the torch and the GPU engine; needs neither.

Two programs define the field's TV-L1 flow, and they differ in more than their numbers:

| `semantics` | bicubic kernel | outside the frame | resize: output x is taken at | stop test |
|---|---|---|---|---|
| `cpu`: `cv::optflow::DualTVL1OpticalFlow` | A = -0.75 | 0 | (x + 1/2) s - 1/2 | each iteration |
| `cuda`: `cv::cuda::OpticalFlowDual_TVL1` | A = -0.5 | edge pixel | x s | see below |

`cuda` tests in odd iterations only (counted from 0), and after a failed test with error e again
only when e, less the threshold for every iteration without a test, is below the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from flowsight.errors import InputError

SEMANTICS = ("cpu", "cuda")
SMALLEST_LEVEL_PX = 16
"""OpenCV builds no pyramid level with a side below this."""


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """All numbers of one TV-L1 solver; the defaults are OpenCV's (`DualTVL1OpticalFlow`)."""

    tau: float = 0.25
    """Time step of the dual problem."""
    lambda_: float = 0.15
    """Weight of the data term, per grey level of 0..255."""
    theta: float = 0.3
    """Coupling between data term and smoothness."""
    num_scales: int = 5
    """Pyramid levels (fewer where the frame is small)."""
    num_warps: int = 5
    """Linearisations on each level."""
    epsilon: float = 0.01
    """A frame stops when the RMS of its update is at most this many px."""
    inner_iterations: int = 30
    """Iterations between two median filters."""
    outer_iterations: int = 10
    """Blocks of inner iterations in a warp."""
    scale_step: float = 0.8
    """Size of each level relative to the finer one."""
    median_filtering: int = 5
    """Side of the median filter: 1 (none), 3 or 5."""
    semantics: str = "cpu"
    """Whose details: `cpu` or `cuda` (see the module)."""
    exact: bool | None = None
    """Whether to round as OpenCV 5.0 on a CPU does, which gives its bits; only with `cpu`. None:
    what the engine does by itself. The C engine is exact then; with False it is 1.5 to 2 times
    faster and as close to OpenCV as OpenCV is to itself when its input moves by one ulp. The torch
    engine and OpenCV are exact whatever this says, the GPU engine never: it refuses True."""

    @property
    def bicubic_a(self) -> float:
        """Free parameter A of Keys' bicubic kernel."""
        return -0.75 if self.semantics == "cpu" else -0.5

    def stop_threshold(self, height: int, width: int) -> float:
        """epsilon^2 H W: largest sum of |du|^2 over a frame, in px^2, at which it stops."""
        return self.epsilon * self.epsilon * height * width


PRESETS: dict[str, dict[str, float | int | str | bool]] = {
    "opencv": {},
    # the same solver, rounded as is fastest: as close to OpenCV as OpenCV to itself one ulp off
    "near": {"exact": False},
    # no bits of OpenCV's to match, hence the faster rounding
    "fast": {"scale_step": 0.5, "num_warps": 3, "outer_iterations": 1, "exact": False},
    "cuda": {
        "semantics": "cuda",
        "median_filtering": 1,
        "inner_iterations": 300,
        "outer_iterations": 1,
    },
}
"""By name, what differs from OpenCV's defaults."""


def read_numbers(numbers: Mapping[str, object]) -> Numbers:
    """A mapping of some or all numbers, by their names in `Numbers`, to all of them.

    Raises:
        InputError: an unknown name, or a value that no solver can run with.
    """
    known = [field.name for field in fields(Numbers)]
    for name in numbers:
        if name not in known:
            raise InputError(f"expected TV-L1 numbers of {', '.join(known)}, got {name!r}")
    result = Numbers(**numbers)  # type: ignore[arg-type]
    _check(result)
    return result


def check_not_exact(numbers: Numbers) -> None:
    """Raise InputError where OpenCV's bits are asked for; for an engine that does not give them."""
    if numbers.exact:
        raise InputError(
            "expected TV-L1's exact to be unset or False on the GPU, which does not round as OpenCV"
            " does, got True; use the backend cpu, torch or opencv"
        )


def level_sizes(height: int, width: int, numbers: Numbers) -> list[tuple[int, int]]:
    """(H, W) of every pyramid level, finest first; halves round to even, as in OpenCV."""
    sizes = [(height, width)]
    for _ in range(1, numbers.num_scales):
        height, width = round(height * numbers.scale_step), round(width * numbers.scale_step)
        if min(height, width) < SMALLEST_LEVEL_PX:
            break
        sizes.append((height, width))
    return sizes


def _check(numbers: Numbers) -> None:
    for name in ("tau", "lambda_", "theta", "epsilon", "scale_step"):
        value = getattr(numbers, name)
        if not (isinstance(value, (int, float)) and math.isfinite(value)):
            raise InputError(f"expected TV-L1's {name} to be a number, got {value!r}")
        # epsilon 0 means: no stop before the last iteration
        if value < 0 or (value == 0 and name != "epsilon"):
            raise InputError(f"expected TV-L1's {name} to be positive, got {value!r}")
    for name in ("num_scales", "num_warps", "inner_iterations", "outer_iterations"):
        value = getattr(numbers, name)
        if not (isinstance(value, int) and value >= 1):
            raise InputError(f"expected TV-L1's {name} to be a whole number > 0, got {value!r}")
    if numbers.scale_step >= 1:
        raise InputError(f"expected TV-L1's scale_step below 1, got {numbers.scale_step!r}")
    if numbers.median_filtering not in (1, 3, 5):
        side = numbers.median_filtering
        raise InputError(f"expected TV-L1's median_filtering to be 1, 3 or 5, got {side!r}")
    if numbers.semantics not in SEMANTICS:
        got = numbers.semantics
        raise InputError(f"expected TV-L1's semantics to be cpu or cuda, got {got!r}")
    _check_exact(numbers)


def _check_exact(numbers: Numbers) -> None:
    if not (numbers.exact is None or isinstance(numbers.exact, bool)):
        raise InputError(f"expected TV-L1's exact to be true or false, got {numbers.exact!r}")
    if numbers.exact and numbers.semantics != "cpu":
        got = numbers.semantics
        raise InputError(f"expected semantics cpu with TV-L1's exact, got {got!r}; leave exact out")
