"""The face of optical flow: laws that any method must keep, and its refusals."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from flowsight import flow
from flowsight.errors import InputError
from flowsight.flow import backends
from flowsight.flow.quantize import quantize

METHODS = [("tvl1", "opencv"), ("tvl1", "fast"), ("dis", "opencv"), ("farneback", "opencv")]


def texture(height: int = 64, width: int = 80, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def shifted(dx: int, dy: int) -> tuple[np.ndarray, np.ndarray]:
    """Two cuts of one texture; what is in the first lies (dx, dy) further in the second."""
    wide = texture(96, 112)
    return wide[16:80, 16:96], wide[16 - dy : 80 - dy, 16 - dx : 96 - dx]


@pytest.mark.parametrize(("method", "preset"), METHODS)
def test_equal_frames_do_not_move(method: str, preset: str) -> None:
    frame = texture()
    found = flow.compute(frame, frame.copy(), method=method, preset=preset)
    assert found.shape == (2, 64, 80)
    assert found.dtype == np.float32
    # Farneback extrapolates across the border
    still = found[:, 16:-16, 16:-16] if method == "farneback" else found
    assert np.abs(still).max() < (0.02 if method == "farneback" else 1e-6)


@pytest.mark.parametrize(("method", "preset"), METHODS)
@pytest.mark.parametrize(("dx", "dy"), [(2, 0), (0, 3), (-2, 1)])
def test_translation_is_found(method: str, preset: str, dx: int, dy: int) -> None:
    found = flow.compute(*shifted(dx, dy), method=method, preset=preset)[:, 12:-12, 12:-12]
    error = np.hypot(found[0] - dx, found[1] - dy)
    assert np.median(error) < 0.3
    assert error.mean() < 0.5


@pytest.mark.parametrize(("method", "preset"), METHODS)
def test_horizontal_flip_negates_u(method: str, preset: str) -> None:
    previous, following = shifted(2, 1)
    found = flow.compute(previous, following, method=method, preset=preset)
    flipped = flow.compute(previous[:, ::-1], following[:, ::-1], method=method, preset=preset)
    back = flipped[:, :, ::-1] * np.array([-1, 1], np.float32)[:, None, None]
    assert np.abs(back - found)[:, 8:-8, 8:-8].mean() < 0.05


def test_opencv_preset_is_opencvs_default() -> None:
    previous, following = shifted(1, 1)
    expected = cv2.optflow.DualTVL1OpticalFlow.create().calc(previous, following, None)
    assert (flow.tvl1(previous, following, backend="opencv") == expected.transpose(2, 0, 1)).all()


def test_fast_preset_is_what_it_says() -> None:
    solver = backends.opencv_tvl1(backends.preset_numbers("fast", {}))
    assert solver.getScaleStep() == 0.5
    assert solver.getScalesNumber() == 5
    assert solver.getWarpingsNumber() == 3
    assert solver.getInnerIterations() * solver.getOuterIterations() == 30


def test_overrides_reach_the_solver() -> None:
    previous, following = shifted(2, 0)
    one_scale = flow.tvl1(
        previous, following, preset="fast", backend="opencv", num_scales=1, num_warps=1
    )
    solver = cv2.optflow.DualTVL1OpticalFlow.create(
        nscales=1, warps=1, outerIterations=1, scaleStep=0.5
    )
    assert (one_scale == solver.calc(previous, following, None).transpose(2, 0, 1)).all()


@pytest.mark.parametrize("method", ["tvl1", "dis", "farneback"])
def test_float_in_unit_range_equals_uint8(method: str) -> None:
    previous, following = shifted(1, 0)
    floats = (frame.astype(np.float32) / 255 for frame in (previous, following))
    found = flow.compute(*floats, method=method, preset="fast")
    expected = flow.compute(previous, following, method=method, preset="fast")
    # TV-L1 stops by a threshold, which the last bit of a grey level can move
    assert np.abs(found - expected).max() < 0.02


@pytest.mark.parametrize(("method", "preset"), METHODS)
def test_batch_equals_single_pairs(method: str, preset: str) -> None:
    pairs = [shifted(1, 0), shifted(0, -1)]
    previous, following = (np.stack(frames) for frames in zip(*pairs, strict=True))
    before = previous.copy()
    found = flow.compute(previous, following, method=method, preset=preset)
    assert found.shape == (2, 2, 64, 80)
    for index, pair in enumerate(pairs):
        assert (found[index] == flow.compute(*pair, method=method, preset=preset)).all()
    assert (previous == before).all()


def test_no_frame_at_all() -> None:
    nothing = np.zeros((0, 20, 30), np.uint8)
    with pytest.raises(InputError, match=r"at least one pair of frames, got \(0, 20, 30\)"):
        flow.tvl1(nothing, nothing)


@pytest.mark.parametrize("backend", ["cpu", "torch", "opencv"])
@pytest.mark.parametrize(
    ("frames", "says"),
    [
        ([], "at least 2 frames, got 0"),
        ([np.zeros((20, 30), np.uint8)], "at least 2 frames, got 1"),
        ([np.zeros((20, 30), np.uint8), np.zeros((20, 31), np.uint8)], "frame 1: .*same shape"),
        ([np.zeros((20, 30, 3), np.uint8)] * 2, "convert RGB to grey"),
        ([np.zeros((11, 30), np.uint8)] * 2, "frame 0: .*12 px"),
        ([np.zeros((20, 30), np.float32), np.full((20, 30), np.nan, np.float32)], "frame 1: .*nan"),
        ([np.zeros((20, 30), np.int64)] * 2, "int64"),
    ],
)
def test_clips_that_are_none(frames: list[np.ndarray], says: str, backend: str) -> None:
    with pytest.raises(InputError, match=says):
        list(flow.tvl1_clip(frames, backend=backend, preset="fast"))


@pytest.mark.parametrize(
    ("method", "backend"),
    [("tvl1", "cpu"), ("tvl1", "torch"), ("tvl1", "opencv"), ("dis", "auto")],
)
def test_levels_are_the_quantised_field(method: str, backend: str) -> None:
    frames = [texture(seed=seed) for seed in range(3)]
    settings = {"method": method, "backend": backend, "preset": "fast"}
    fields = list(flow.compute_clip(frames, **settings))
    levels = list(flow.compute_levels(frames, bound_px=7.5, **settings))
    assert [level.dtype for level in levels] == [np.uint8] * 2
    for field, level in zip(fields, levels, strict=True):
        assert (level == quantize(field, 7.5)).all()
    with pytest.raises(InputError, match="bound_px"):
        flow.compute_levels(frames, bound_px=0, **settings)


def test_clip_is_its_pairs_one_at_a_time() -> None:
    frames = [texture(seed=seed) for seed in range(3)]
    read = []

    def reader() -> object:
        for frame in frames:
            read.append(len(read))
            yield frame

    fields = flow.tvl1_clip(reader(), preset="fast", backend="opencv")  # type: ignore[arg-type]
    first = next(fields)
    assert read == [0, 1]
    assert (first == flow.tvl1(frames[0], frames[1], preset="fast", backend="opencv")).all()
    assert len(list(fields)) == 1


def test_a_long_clip_is_read_only_as_fast_as_it_is_solved() -> None:
    read = []

    def endless() -> object:
        while True:
            read.append(len(read))
            yield texture(seed=len(read) % 3)

    levels = flow.compute_levels(
        endless(),  # type: ignore[arg-type]
        method="tvl1",
        preset="fast",
        backend="cpu",
        bound_px=20,
        threads=2,
    )
    for taken in range(1, 9):
        next(levels)
        assert len(read) <= taken + 5  # a pair has two frames, and 2 pairs a thread may wait
    levels.close()  # type: ignore[attr-defined]


GREY = np.zeros((20, 30), np.uint8)


@pytest.mark.parametrize(
    ("previous", "following", "says"),
    [
        (GREY, GREY[1:], "same shape"),
        (GREY, GREY.astype(np.float32), "same shape and type"),
        (GREY.astype(np.float64), GREY.astype(np.float64), "float64"),
        (GREY.astype(np.float32) + 255, GREY.astype(np.float32), "divide by 255"),
        (np.full((20, 30), np.nan, np.float32), GREY.astype(np.float32), r"\[0, 1\]"),
        (np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30, 3), np.uint8), "grey first"),
        (GREY[:5], GREY[:5], "12 px"),
        (GREY[0], GREY[0], r"\(H, W\)"),
        (None, GREY, "NoneType"),
    ],
)
def test_wrong_frames(previous: np.ndarray, following: np.ndarray, says: str) -> None:
    with pytest.raises(InputError, match=says):
        flow.tvl1(previous, following)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"preset": "cuda", "backend": "opencv"}, "cpu, torch or gpu"),
        ({"preset": "slow"}, "opencv, near, fast, cuda"),
        ({"backend": "cuda"}, "auto, cpu, torch, gpu, opencv"),
        ({"warps": 3}, "num_warps"),
        ({"num_warps": 0}, "num_warps"),
        ({"num_warps": 2.5}, "num_warps"),
        ({"tau": "x"}, "a number"),
        ({"tau": -1}, "tau"),
        ({"scale_step": 1.0}, "scale_step"),
        ({"epsilon": float("nan")}, "epsilon"),
        ({"median_filtering": 4}, "median_filtering"),
    ],
)
def test_wrong_settings_are_found_before_any_frame(settings: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        flow.tvl1_clip(iter(()), **settings)


def test_unknown_method() -> None:
    with pytest.raises(InputError, match="tvl1, dis, farneback"):
        flow.compute(GREY, GREY, method="brox")


def test_plain_opencv_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "optflow")
    with pytest.raises(InputError, match="opencv-contrib-python-headless"):
        flow.tvl1(GREY, GREY, backend="opencv")
    assert flow.compute(GREY, GREY, method="dis").shape == (2, 20, 30)


def read_flo(path: Path) -> np.ndarray:
    """Middlebury's format: magic 202021.25, width, height, then u and v interleaved."""
    data = path.read_bytes()
    assert np.frombuffer(data, "<f4", 1)[0] == np.float32(202021.25)
    width, height = np.frombuffer(data, "<i4", 2, offset=4)
    return np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2).transpose(2, 0, 1)


@pytest.mark.parametrize(("name", "limit_px"), [("RubberWhale", 0.45), ("Venus", 0.75)])
def test_end_point_error_on_middlebury(shared_data: Path, name: str, limit_px: float) -> None:
    root = shared_data / "middlebury-flow"
    frames = [
        cv2.imread(str(root / "other-data" / name / f"frame1{i}.png"), cv2.IMREAD_GRAYSCALE)
        for i in (0, 1)
    ]
    target = read_flo(root / "other-gt-flow" / name / "flow10.flo")
    half = [cv2.resize(f, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for f in frames]
    found = flow.tvl1(*half, preset="fast")
    height, width = found.shape[1:]
    target = target[:, : 2 * height : 2, : 2 * width : 2] / 2
    known = (np.abs(target) < 1e3).all(axis=0)
    error = np.hypot(*(found - target))[known]
    still = np.hypot(*target)[known]
    assert error.mean() < limit_px < still.mean()


def test_sign_and_axes_against_the_i3d_authors(shared_data: Path) -> None:
    root = shared_data / "flow-reference" / "kinetics-i3d"
    rgb, reference = (read_gif(root / f"v_CricketShot_g04_c01_{k}.gif") for k in ("rgb", "flow"))
    count = min(len(rgb), len(reference) + 1, 5)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in rgb[:count]]
    found = np.stack(list(flow.tvl1_clip(grey, preset="fast")))
    stored = np.stack(reference[: count - 1]).astype(np.float32)
    for axis in (0, 1):  # red is u, green is v
        right = np.corrcoef(found[:, axis].ravel(), stored[..., axis].ravel())[0, 1]
        crossed = np.corrcoef(found[:, axis].ravel(), stored[..., 1 - axis].ravel())[0, 1]
        assert right > 0.4
        assert right > abs(crossed) + 0.2


def read_gif(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    frames = []
    while True:
        ok, frame = capture.read()
        if not ok:
            return frames
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
