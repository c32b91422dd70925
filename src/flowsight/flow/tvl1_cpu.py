"""TV-L1 on the CPU: the C engine (`_tvl1.c`), one frame pair per thread, without the GIL.

The engine is a shared library that the package's build makes where there is a C compiler. It picks
the widest instruction set of the machine; all give the same bits, so FLOWSIGHT_SIMD (or `simd`)
= baseline, avx2 or avx512 is for tests only. With OpenCV's details (`semantics` cpu) and unless the
number `exact` is False, they are the bits of OpenCV 5.0 on a CPU with fused multiply-adds.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from flowsight.errors import InputError
from flowsight.flow.quantize import check_bound
from flowsight.flow.tvl1_library import (
    CNumbers,
    available,
    checked_library,
    level_number,
    library_info,
    source_matches,
)
from flowsight.flow.tvl1_numbers import Numbers, read_numbers

__all__ = [
    "available",
    "library_info",
    "solve",
    "solve_clip",
    "solve_quantized",
    "source_matches",
]

KEPT_BYTES = 64 * 2**20
"""Largest workspace that a thread keeps for its next frame pair."""

_FAULTS = {
    1: "expected frames of 1 to 32768 px a side (2^27 px in all), got {shape}",
    3: "expected numbers that float32 carries (tau near 0.25, theta near 0.3), got no finite flow",
    4: "expected float32 frames in [0, 1], got values outside it or NaN; divide by 255",
}


class _Scratch(threading.local):
    """A thread's workspace, kept between frame pairs."""

    buffer: np.ndarray | None = None


_scratch = _Scratch()


def solve(
    previous: np.ndarray,
    following: np.ndarray,
    *,
    numbers: Numbers | Mapping[str, object],
    threads: int | None = None,
    simd: str | None = None,
) -> np.ndarray:
    """TV-L1 flow of N frame pairs.

    Args:
        previous: grey (N, H, W), uint8, or float32 in [0, 1].
        following: same shape and type.
        numbers: by their names in `Numbers`; what is missing is OpenCV's default.
        threads: frame pairs solved at once; by default as many as this process may use cores.
        simd: `baseline`, `avx2` or `avx512`; by default FLOWSIGHT_SIMD, else the best.

    Returns:
        (N, 2, H, W) float32, px per frame: u to the right, then v downwards. The same bits on
        every instruction set, for any number of threads and any order of the pairs.

    Raises:
        InputError: other frames or numbers, no such instruction set, or no engine.
    """
    return _solve_all(previous, following, numbers, threads, simd, None)


def solve_quantized(
    previous: np.ndarray,
    following: np.ndarray,
    *,
    bound_px: float,
    numbers: Numbers | Mapping[str, object],
    threads: int | None = None,
    simd: str | None = None,
) -> np.ndarray:
    """As `solve`, as stored levels: what `quantize.quantize` makes of its result, from C.

    Returns:
        (N, 2, H, W) uint8, -bound_px to 0, bound_px to 255.

    Raises:
        InputError: as `solve`, or a bound that is not positive.
    """
    check_bound(bound_px)
    return _solve_all(previous, following, numbers, threads, simd, bound_px)


def solve_clip(
    frames: Iterable[np.ndarray],
    *,
    numbers: Numbers | Mapping[str, object],
    threads: int | None = None,
    simd: str | None = None,
    bound_px: float | None = None,
) -> Iterator[np.ndarray]:
    """Flow of a clip, many pairs at a time, in bounded memory.

    Args:
        frames: grey (H, W) frames as for `solve`, read at most 2 * threads ahead; they must not
            change afterwards.
        numbers, threads, simd: as for `solve`.
        bound_px: levels as from `solve_quantized` in place of px.

    Returns:
        Iterator over (2, H, W) in the order of the frames: one field fewer than frames.

    Raises:
        InputError: as `solve`; wrong settings are found before the first frame is read.
    """
    if bound_px is not None:
        check_bound(bound_px)
    pair = _pair_solver(numbers, simd, bound_px)
    return _clip(frames, pair, _num_threads(threads))


def _clip(frames: Iterable[np.ndarray], pair: _Pair, threads: int) -> Iterator[np.ndarray]:
    waiting: deque[Future[np.ndarray]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            previous = None
            for frame in frames:
                if previous is not None:
                    _check_frames(previous[None], frame[None])
                    waiting.append(pool.submit(pair, previous, frame))
                previous = np.ascontiguousarray(frame)
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _solve_all(
    previous: np.ndarray,
    following: np.ndarray,
    numbers: Numbers | Mapping[str, object],
    threads: int | None,
    simd: str | None,
    bound_px: float | None,
) -> np.ndarray:
    _check_frames(previous, following)
    pair = _pair_solver(numbers, simd, bound_px)
    count, height, width = previous.shape
    dtype = np.float32 if bound_px is None else np.uint8
    out = np.empty((count, 2, height, width), dtype)

    def work(index: int) -> None:
        pair(previous[index], following[index], out[index])

    workers = min(_num_threads(threads), count)
    if workers <= 1:
        for index in range(count):
            work(index)
        return out
    with ThreadPoolExecutor(workers) as pool:
        for future in [pool.submit(work, index) for index in range(count)]:
            future.result()
    return out


_Pair = Callable[..., np.ndarray]


def _pair_solver(
    numbers: Numbers | Mapping[str, object], simd: str | None, bound_px: float | None
) -> _Pair:
    """(H, W) and (H, W), and optionally where to, to (2, H, W)."""
    library = checked_library()
    level = level_number(simd, library)
    c_numbers = _c_numbers(numbers)

    def pair(
        previous: np.ndarray, following: np.ndarray, out: np.ndarray | None = None
    ) -> np.ndarray:
        first, second = np.ascontiguousarray(previous), np.ascontiguousarray(following)
        height, width = first.shape
        if out is None:
            out = np.empty((2, height, width), np.float32 if bound_px is None else np.uint8)
        size = library.flowsight_tvl1_workspace(height, width, ctypes.byref(c_numbers))
        if size == 0:
            raise InputError(_FAULTS[1].format(shape=first.shape))
        memory = _workspace(size)
        code = library.flowsight_tvl1_solve(
            first.ctypes.data,
            second.ctypes.data,
            int(first.dtype == np.float32),
            height,
            width,
            ctypes.byref(c_numbers),
            out.ctypes.data if bound_px is None else None,
            None if bound_px is None else out.ctypes.data,
            bound_px or 0.0,
            memory.ctypes.data,
            memory.nbytes,
            level,
            None,
        )
        if code:
            raise InputError(_FAULTS.get(code, f"TV-L1 engine: fault {code}"))
        return out

    return pair


def _workspace(size: int) -> np.ndarray:
    held = _scratch.buffer
    if held is not None and held.nbytes >= size:
        return held
    try:
        memory = np.empty(size, np.uint8)
    except MemoryError:
        raise InputError(
            f"expected {size / 2**20:.0f} MiB of memory for one frame pair, got none;"
            " use smaller frames or fewer threads"
        ) from None
    _scratch.buffer = memory if size <= KEPT_BYTES else None
    return memory


def _c_numbers(numbers: Numbers | Mapping[str, object]) -> CNumbers:
    given = numbers if isinstance(numbers, Numbers) else read_numbers(numbers)
    most = 2**31 - 1
    result = CNumbers(
        tau=given.tau,
        lambda_=given.lambda_,
        theta=given.theta,
        epsilon=given.epsilon,
        scale_step=given.scale_step,
        num_scales=min(given.num_scales, most),
        num_warps=min(given.num_warps, most),
        inner_iterations=min(given.inner_iterations, most),
        outer_iterations=min(given.outer_iterations, most),
        median_filtering=given.median_filtering,
        cuda=int(given.semantics == "cuda"),
        exact=int(given.semantics == "cpu" if given.exact is None else given.exact),
    )
    # a size that always fits, to hear what the engine thinks of the numbers alone
    if checked_library().flowsight_tvl1_workspace(16, 16, ctypes.byref(result)) == 0:
        raise InputError(f"expected TV-L1 numbers of at most 1e6, got {given}")
    return result


def _check_frames(previous: np.ndarray, following: np.ndarray) -> None:
    for frames in (previous, following):
        if not isinstance(frames, np.ndarray) or frames.ndim != 3:
            got = getattr(frames, "shape", type(frames).__name__)
            raise InputError(f"expected grey frames (N, H, W), got {got}")
        if frames.dtype not in (np.uint8, np.float32):
            raise InputError(f"expected frames as uint8, or float32 in [0, 1], got {frames.dtype}")
        if 0 in frames.shape[1:]:
            raise InputError(f"expected frames of at least 1 px a side, got {frames.shape[1:]}")
    if previous.shape != following.shape or previous.dtype != following.dtype:
        got = f"{previous.dtype} {previous.shape} and {following.dtype} {following.shape}"
        raise InputError(f"expected two frames of the same shape and type, got {got}")


def _num_threads(threads: int | None) -> int:
    if threads is None:
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
    if threads < 1:
        raise InputError(f"expected at least 1 thread, got {threads}")
    return threads
