"""The C engine of TV-L1 against itself over instruction sets and threads, and its faster flavour
against OpenCV; the exact one: test_tvl1_exact."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from flowsight.errors import InputError
from flowsight.flow import quantize, tvl1_cpu, tvl1_library
from tests.conftest import missing

FIXED = {"epsilon": 0.0, "inner_iterations": 10, "outer_iterations": 1}
ONE_LEVEL = {**FIXED, "num_scales": 1, "num_warps": 1}
CUDA = {
    "semantics": "cuda",
    "median_filtering": 1,
    "inner_iterations": 300,
    "outer_iterations": 1,
}


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip where the package was installed without a C compiler."""
    monkeypatch.delenv("FLOWSIGHT_SIMD", raising=False)
    if not tvl1_cpu.available():
        missing("the CPU engine of TV-L1 is not built from this source; pip install -e .")


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth noise, (H, W) uint8, with room around for a shift."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.standard_normal((height + 32, width + 32)), (0, 0), 2.5)
    return np.clip(127 + noise * 350, 0, 255).astype(np.uint8)


def moved_pair(height: int = 120, width: int = 160, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A texture and the same moved by (2.5, -1.25) px."""
    image = texture(height, width, seed)
    matrix = np.array([[1, 0, 2.5], [0, 1, -1.25]])
    moved = cv2.warpAffine(image, matrix, image.shape[::-1], flags=cv2.INTER_CUBIC)
    return image[16:-16, 16:-16].copy(), moved[16:-16, 16:-16].copy()


def faded_pair(height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A moved texture that fades to flat grey at the edges.

    Where texture crosses the frame's edge, OpenCV's own answer changes by up to a pixel when its
    input moves by one float32 ulp: there is nothing to compare with.
    """
    y, x = np.mgrid[:height, :width]
    to_edge = np.minimum(np.minimum(x, width - 1 - x), np.minimum(y, height - 1 - y))
    weight = np.clip(to_edge / 20, 0, 1)
    first, second = (
        np.rint(127 + (frame - 127.0) * weight).astype(np.uint8)
        for frame in moved_pair(height, width, seed)
    )
    return first, second


def opencv(previous: np.ndarray, following: np.ndarray, **numbers: object) -> np.ndarray:
    """OpenCV's own flow, (2, H, W)."""
    if not hasattr(cv2, "optflow"):
        missing("OpenCV without the contrib modules")
    names = {"num_scales": "nscales", "num_warps": "warps", "inner_iterations": "innnerIterations"}
    names |= {"outer_iterations": "outerIterations", "scale_step": "scaleStep"}
    names |= {"median_filtering": "medianFiltering"}
    given = {names.get(name, name): value for name, value in numbers.items()}
    solver = cv2.optflow.DualTVL1OpticalFlow.create(**given)
    return solver.calc(previous, following, None).transpose(2, 0, 1)


def solve(previous: np.ndarray, following: np.ndarray, **numbers: object) -> np.ndarray:
    """One pair, (H, W) to (2, H, W)."""
    return tvl1_cpu.solve(previous[None], following[None], numbers=numbers)[0]


def faster(previous: np.ndarray, following: np.ndarray, **numbers: object) -> np.ndarray:
    """As `solve`, rounded as is fastest."""
    return solve(previous, following, **numbers, exact=False)


@pytest.mark.parametrize("size", [(120, 160), (61, 97), (17, 33), (5, 3), (2, 2), (40, 2)])
def test_one_level_equals_opencv(size: tuple[int, int]) -> None:
    pair = moved_pair(*size)
    assert np.abs(faster(*pair, **ONE_LEVEL) - opencv(*pair, **ONE_LEVEL)).max() <= 1e-5


def test_float_frames_equal_opencv() -> None:
    first, second = (np.float32(frame) / np.float32(255) for frame in moved_pair())
    expected = opencv(first, second, **ONE_LEVEL)
    assert np.abs(faster(first, second, **ONE_LEVEL) - expected).max() <= 1e-5


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"scale_step": 0.5},
        {"scale_step": 0.7, "num_scales": 4},
        {"median_filtering": 3},
        {"median_filtering": 1},
        {"lambda_": 0.1, "theta": 0.4, "tau": 0.2},
    ],
)
def test_whole_pyramid_equals_opencv(overrides: dict[str, float]) -> None:
    """On textures that fade at the edge, and for these numbers and sizes only.

    Real clips and plain moving textures do not stay this close (docs/performance.md): rounding
    grows there, in OpenCV against itself one ulp off as well.
    """
    numbers = {**FIXED, **overrides}
    for seed, size in enumerate([(120, 160), (101, 133)]):
        pair = faded_pair(*size, seed)
        difference = np.abs(faster(*pair, **numbers) - opencv(*pair, **numbers))
        assert difference.mean() <= 1e-4
        assert difference.max() <= 0.06


def test_defaults_agree_with_opencv() -> None:
    pair = moved_pair()
    ours = quantize.quantize(faster(*pair), 20).astype(int)
    theirs = quantize.quantize(opencv(*pair), 20).astype(int)
    assert np.mean(np.abs(ours - theirs) <= 1) >= 0.998


def test_finds_the_true_motion() -> None:
    pair = moved_pair()
    for numbers in ({}, {"scale_step": 0.5, "num_warps": 3, "outer_iterations": 1}, CUDA):
        inside = solve(*pair, **numbers)[:, 16:-16, 16:-16]
        np.testing.assert_allclose(np.median(inside, (1, 2)), [2.5, -1.25], atol=0.1)


def test_cuda_semantics_against_a_plain_reference() -> None:
    first, second = moved_pair(40, 48)
    for iterations in (3, 60):
        numbers = {**CUDA, "num_scales": 1, "num_warps": 2, "inner_iterations": iterations}
        ours, expected = solve(first, second, **numbers), plain_cuda(first, second, iterations)
        assert np.abs(ours - expected).max() <= 2e-4


def plain_cuda(previous: np.ndarray, following: np.ndarray, iterations: int) -> np.ndarray:
    """One level, two warps of OpenCV's CUDA class, in float64 and by the formulas."""
    i0, i1 = previous.astype(float), following.astype(float)
    h, w = i0.shape
    wide = np.pad(i1, 1, mode="edge")
    images = [i1, (wide[1:-1, 2:] - wide[1:-1, :-2]) / 2, (wide[2:, 1:-1] - wide[:-2, 1:-1]) / 2]
    u, p, limit = np.zeros((2, h, w)), np.zeros((2, 2, h, w)), 1e-4 * h * w
    for _ in range(2):
        warped, ix, iy = (catmull_rom(image, u) for image in images)
        rho_c = warped - ix * u[0] - iy * u[1] - i0
        square, last = ix**2 + iy**2, 0.0
        for n in range(iterations):
            rho = rho_c + ix * u[0] + iy * u[1]
            step = np.clip(-rho / np.maximum(square, 1e-30), -0.045, 0.045)
            divergence = np.diff(p[:, 0], axis=2, prepend=0) + np.diff(p[:, 1], axis=1, prepend=0)
            new = u + step * np.stack((ix, iy)) + 0.3 * divergence
            error = ((new - u) ** 2).sum()
            u = new
            gradient = np.stack(
                (np.diff(u, axis=2, append=u[:, :, -1:]), np.diff(u, axis=1, append=u[:, -1:])), 1
            )
            norm = np.sqrt((gradient**2).sum(1, keepdims=True))
            p = (p + 0.25 / 0.3 * gradient) / (1 + 0.25 / 0.3 * norm)
            if n % 2 and last < limit:
                last = error
                if error <= limit:
                    break
            else:
                last -= limit
    return u


def catmull_rom(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Image at x + u, y + v, the edge repeated."""
    h, w = image.shape
    y, x = np.mgrid[:h, :w] + flow[::-1]
    result = np.zeros((h, w))
    for dy in range(-1, 3):
        for dx in range(-1, 3):
            at_x, at_y = np.floor(x) + dx, np.floor(y) + dy
            weight = kernel(x - at_x) * kernel(y - at_y)
            rows, columns = np.clip(at_y, 0, h - 1).astype(int), np.clip(at_x, 0, w - 1).astype(int)
            result += weight * image[rows, columns]
    return result


def kernel(d: np.ndarray) -> np.ndarray:
    """Catmull and Rom's, by distance."""
    d = np.abs(d)
    return np.where(d <= 1, 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2)


@pytest.mark.parametrize(
    "numbers", [{}, {"exact": False}, CUDA, {"median_filtering": 3, "scale_step": 0.5}]
)
def test_same_bits_everywhere(numbers: dict[str, object]) -> None:
    sizes = [(60, 80), (33, 47)] if numbers else [(60, 80), (33, 47), (70, 65), (16, 16)]
    for size in sizes:
        pairs = [moved_pair(*size, seed) for seed in range(4)]
        first, second = (np.stack(frames) for frames in zip(*pairs, strict=True))
        expected = tvl1_cpu.solve(first, second, numbers=numbers, threads=1, simd="baseline")
        for simd in tvl1_cpu.library_info()["simd"]:
            for threads in (1, 3):
                got = tvl1_cpu.solve(first, second, numbers=numbers, threads=threads, simd=simd)
                assert got.tobytes() == expected.tobytes()
        back = tvl1_cpu.solve(first[::-1], second[::-1], numbers=numbers)[::-1]
        assert back.tobytes() == expected.tobytes()


def test_quantised_in_the_kernel_as_in_numpy() -> None:
    first, second = (frame[None] for frame in moved_pair(60, 80))
    flow = tvl1_cpu.solve(first, second, numbers={})
    for bound_px in (20.0, 1.0, 0.3):
        levels = tvl1_cpu.solve_quantized(first, second, bound_px=bound_px, numbers={})
        assert levels.dtype == np.uint8
        np.testing.assert_array_equal(levels, quantize.quantize(flow, bound_px))


def test_clip_is_its_pairs_and_is_read_in_bounded_steps() -> None:
    clip = [texture(40, 50, seed)[8:48, 9:59] for seed in range(9)]
    taken = 0

    def frames() -> Iterator[np.ndarray]:
        nonlocal taken
        for frame in clip:
            taken += 1
            yield frame

    numbers = {"num_warps": 2, "outer_iterations": 1}
    stack = np.stack(clip)
    expected = tvl1_cpu.solve(stack[:-1], stack[1:], numbers=numbers)
    fields = tvl1_cpu.solve_clip(frames(), numbers=numbers, threads=2)
    first = next(fields)
    assert taken <= 6
    np.testing.assert_array_equal(np.stack([first, *fields]), expected)
    levels = list(tvl1_cpu.solve_clip(frames(), numbers=numbers, threads=1, bound_px=20))
    np.testing.assert_array_equal(np.stack(levels), quantize.quantize(expected, 20))
    assert list(tvl1_cpu.solve_clip(clip[:1], numbers=numbers)) == []
    assert list(tvl1_cpu.solve_clip([], numbers=numbers)) == []


def test_equal_frames_do_not_move() -> None:
    frame = moved_pair()[0]
    assert np.abs(solve(frame, frame)).max() == 0
    assert np.abs(solve(np.zeros_like(frame), np.zeros_like(frame))).max() == 0


def test_mirrored_frames_mirror_the_flow() -> None:
    first, second = moved_pair()
    flow = solve(first, second, **FIXED)
    mirrored = solve(first[:, ::-1].copy(), second[:, ::-1].copy(), **FIXED)[:, :, ::-1]
    inside = np.s_[24:-24, 24:-24]
    assert np.abs(flow[0] + mirrored[0])[inside].mean() <= 0.02
    assert np.abs(flow[1] - mirrored[1])[inside].mean() <= 0.02


def test_inputs_stay_as_they_are() -> None:
    first, second = moved_pair(50, 60)
    for pair in ((first, second), (np.float32(first) / 255, np.float32(second) / 255)):
        copies = [frame.copy() for frame in pair]
        for frame in pair:
            frame.flags.writeable = False
        solve(*pair)
        for frame, copy in zip(pair, copies, strict=True):
            np.testing.assert_array_equal(frame, copy)


def test_views_are_solved_as_copies() -> None:
    first, second = moved_pair(50, 60)
    flow = solve(first[::2, ::3], second[::2, ::3])
    np.testing.assert_array_equal(flow, solve(first[::2, ::3].copy(), second[::2, ::3].copy()))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (15, 15), (16, 17)])
def test_smallest_frames_are_solved(size: tuple[int, int]) -> None:
    for numbers in ({}, CUDA):
        assert np.isfinite(solve(*moved_pair(*size), **numbers)).all()


def test_no_pairs_give_no_flow() -> None:
    none = np.empty((0, 20, 30), np.uint8)
    assert tvl1_cpu.solve(none, none, numbers={}).shape == (0, 2, 20, 30)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.zeros((1, 20, 30), np.uint8), np.zeros((1, 20, 31), np.uint8), "same shape"),
        (np.zeros((1, 20, 30), np.uint8), np.zeros((1, 20, 30), np.float32), "same shape"),
        (np.zeros((20, 30), np.uint8), np.zeros((20, 30), np.uint8), r"\(N, H, W\)"),
        (np.zeros((1, 2, 20, 3), np.uint8), np.zeros((1, 2, 20, 3), np.uint8), r"\(N, H, W\)"),
        (np.zeros((1, 0, 30), np.uint8), np.zeros((1, 0, 30), np.uint8), "at least 1 px"),
        (np.zeros((1, 9, 9)), np.zeros((1, 9, 9)), "got float64"),
        (np.full((1, 9, 9), 2, np.float32), np.zeros((1, 9, 9), np.float32), "divide by 255"),
        (np.full((1, 9, 9), np.nan, np.float32), np.zeros((1, 9, 9), np.float32), "NaN"),
        (np.zeros((1, 40000, 1), np.uint8), np.zeros((1, 40000, 1), np.uint8), "32768"),
    ],
)
def test_wrong_frames_are_named(first: np.ndarray, second: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tvl1_cpu.solve(first, second, numbers={})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"numbers": {"speed": 1}}, "speed"),
        ({"numbers": {"tau": float("nan")}}, "tau"),
        ({"numbers": {"tau": 1e9}}, "1e6"),
        ({"numbers": {"median_filtering": 7}}, "median"),
        ({"numbers": {"tau": 1e-300, "exact": False}}, "no finite flow"),
        ({"numbers": {"exact": 2}}, "true or false"),
        ({"numbers": {}, "threads": 0}, "thread"),
        ({"numbers": {}, "simd": "mmx"}, "mmx"),
    ],
)
def test_wrong_settings_are_named(arguments: dict[str, object], message: str) -> None:
    first, second = (frame[None] for frame in moved_pair(40, 50))
    with pytest.raises(InputError, match=message):
        tvl1_cpu.solve(first, second, **arguments)


def test_wrong_settings_of_a_clip_are_found_before_its_first_frame() -> None:
    with pytest.raises(InputError, match="bound_px"):
        tvl1_cpu.solve_clip(iter([]), numbers={}, bound_px=-1)
    with pytest.raises(InputError, match="mmx"):
        tvl1_cpu.solve_clip(iter([]), numbers={}, simd="mmx")
    frames = [np.zeros((20, 30), np.uint8), np.zeros((20, 32), np.uint8)]
    with pytest.raises(InputError, match="same shape"):
        list(tvl1_cpu.solve_clip(frames, numbers={}))


def test_instruction_set_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWSIGHT_SIMD", "sse9")
    with pytest.raises(InputError, match="sse9"):
        solve(*moved_pair(20, 20))


def test_a_library_of_other_source_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tvl1_library, "_source_digest", lambda: "other")
    assert not tvl1_cpu.available()
    with pytest.raises(InputError, match="built from _tvl1"):
        solve(*moved_pair(20, 20))


def test_no_library_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tvl1_library, "_library", lambda: None)
    assert not tvl1_cpu.available()
    assert tvl1_cpu.library_info()["path"] is None
    with pytest.raises(InputError, match="C compiler"):
        solve(*moved_pair(20, 20))


@pytest.mark.slow
def test_real_clips_agree_with_opencv(shared_data: Path) -> None:
    shares = []
    for path in sorted((shared_data / "ucf101/videos").glob("*/*.avi"))[::9]:
        video = cv2.VideoCapture(str(path))
        frames = [cv2.cvtColor(video.read()[1], cv2.COLOR_BGR2GRAY) for _ in range(11)][-2:]
        ours, theirs = (quantize.quantize(f(*frames), 20).astype(int) for f in (faster, opencv))
        shares.append(np.mean(np.abs(ours - theirs) <= 1))
    assert np.mean(shares) >= 0.99
    assert np.median(shares) >= 0.998


@pytest.mark.slow
def test_sanitizers_find_nothing(repository: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        missing("no C compiler")
    done = benchmark(repository / "benchmarks/fuzz_tvl1.py").fuzz(400, 3, str(compiler))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("400 inputs")


def benchmark(path: Path) -> ModuleType:
    """A script of benchmarks/ as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
