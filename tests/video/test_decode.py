"""Decoding and probing: real counts, real reasons, silence on broken files."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from flowsight.errors import InputError
from flowsight.video import decode
from flowsight.video.decode import UnreadableVideo, decode_timed
from flowsight.video.probe import VideoInfo, probe


def write_video(path: Path, levels: list[int], size: tuple[int, int] = (64, 48)) -> Path:
    """A video of flat frames, one grey level each, 10 fps."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, size)
    for level in levels:
        writer.write(np.full((size[1], size[0], 3), level, np.uint8))
    writer.release()
    return path


def test_frames_come_in_order_as_rgb(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    writer.write(np.full((48, 64, 3), (0, 0, 200), np.uint8))  # red, as OpenCV orders channels
    writer.write(np.full((48, 64, 3), (200, 0, 0), np.uint8))
    writer.release()
    frames = list(decode.decode(tmp_path / "v.avi"))
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 2
    assert frames[0].dtype == np.uint8
    assert np.abs(frames[0][20, 30].astype(int) - (200, 0, 0)).max() < 12
    assert np.abs(frames[1][20, 30].astype(int) - (0, 0, 200)).max() < 12


def test_time_stamps_grow_by_the_frame_rate(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", [0, 50, 100, 150])
    assert [time_sec for time_sec, _ in decode_timed(path)] == [0.0, 0.1, 0.2, 0.3]


def test_size_is_width_and_height(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", [10, 20])
    assert {frame.shape for frame in decode.decode(path, (20, 30))} == {(30, 20, 3)}


def test_resize_averages_when_shrinking() -> None:
    checker = np.zeros((32, 32, 3), np.uint8)
    checker[::2, ::2] = checker[1::2, 1::2] = 200
    assert (decode.resize(checker, (16, 16)) == 100).all()
    assert decode.resize(checker, (32, 32)) is checker


def test_probe(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", [0, 50, 100])
    expected = VideoInfo(width=64, height=48, fps=10.0, num_frames=3, num_frames_header=3)
    assert probe(path) == expected


def test_a_cut_file_gives_the_frames_before_the_cut(tmp_path: Path) -> None:
    whole = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for seed in range(20):
        writer.write(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    writer.release()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    info = probe(cut)
    assert 5 < info.num_frames < 15
    assert info.num_frames_header == 20


def broken_files(folder: Path) -> dict[str, Path]:
    """One broken file of each kind, by the reason it should give."""
    whole = write_video(folder / "whole.avi", [10, 20, 30]).read_bytes()
    contents = {
        "empty file": b"",
        "not a video": bytes(range(256)) * 20,
        "not a video (text)": b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n",
        "no frame decodes": whole[: whole.index(b"movi") + 4],
    }
    files = {reason: folder / f"broken{i}.avi" for i, reason in enumerate(contents)}
    for reason, path in files.items():
        path.write_bytes(contents[reason])
    return files


def test_broken_files_give_short_reasons_without_paths(tmp_path: Path) -> None:
    for reason, path in broken_files(tmp_path).items():
        with pytest.raises(UnreadableVideo) as caught:
            probe(path)
        found = caught.value.reason
        # FFmpeg's builds differ in how early they give a headless file up
        assert found == reason or {found, reason} == {"no frame decodes", "not a video"}
        assert str(path) in str(caught.value)
        assert isinstance(caught.value, InputError)


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UnreadableVideo, match="missing file"):
        probe(tmp_path / "none.avi")
    with pytest.raises(UnreadableVideo, match="not a file"):
        probe(tmp_path)


def test_limits(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", [0, 10, 20, 30])
    assert probe(path, max_frames=4).num_frames == 4
    with pytest.raises(UnreadableVideo, match="more than 3 frames"):
        probe(path, max_frames=3)
    with pytest.raises(UnreadableVideo, match=r"frame size 64x48 outside 16\.\.60 px"):
        probe(path, max_side_px=60)
    tiny = write_video(tmp_path / "tiny.avi", [0, 10], size=(12, 8))
    with pytest.raises(UnreadableVideo, match="12x8"):
        probe(tiny)


class FakeCapture:
    """Stands for a capture: OpenCV itself scales a changed size back, so none shows it."""

    def __init__(self, shapes: list[tuple[int, int, int]], stamps_ms: list[float]) -> None:
        self.shapes, self.stamps_ms, self.count = shapes, stamps_ms, 0

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        return True

    def read(self) -> tuple[bool, np.ndarray | None]:
        if self.count == len(self.shapes):
            return False, None
        self.count += 1
        return True, np.zeros(self.shapes[self.count - 1], np.uint8)

    def get(self, what: int) -> float:
        if what == cv2.CAP_PROP_POS_MSEC:
            return self.stamps_ms[self.count - 1]
        return {cv2.CAP_PROP_FPS: float("nan"), cv2.CAP_PROP_FRAME_COUNT: -9e18}.get(what, 64.0)

    def release(self) -> None:
        pass


def test_changing_size_and_absurd_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "v.avi", [0])
    shapes = [(64, 64, 3), (64, 64, 3), (32, 32, 3)]

    def use(shapes: list[tuple[int, int, int]], stamps_ms: list[float]) -> None:
        monkeypatch.setattr(cv2, "VideoCapture", lambda *_: FakeCapture(shapes, stamps_ms))

    use(shapes, [0, 40, 80])
    with pytest.raises(UnreadableVideo, match="frame size changes at frame 2"):
        list(decode_timed(path))
    use(shapes[:2], [0, 40])
    info = probe(path)
    assert (info.fps, info.num_frames_header) == (decode.ASSUMED_FPS, 0)


def test_time_stamps_that_fall_back_are_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "v.avi", [0])
    capture = FakeCapture([(64, 64, 3)] * 4, [66.0, 100.0, 0.0, 0.0])
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: capture)
    assert [time_sec for time_sec, _ in decode_timed(path)] == [0.066, 0.1, 0.14, 0.18]


def test_broken_videos_print_nothing(tmp_path: Path) -> None:
    broken_files(tmp_path)
    data = bytearray(write_video(tmp_path / "noisy.avi", list(range(0, 250, 10))).read_bytes())
    rng = np.random.default_rng(0)
    for position in rng.integers(3000, len(data), 400):
        data[position] = rng.integers(256)
    (tmp_path / "noisy.avi").write_bytes(data)
    code = (
        "import pathlib, sys\n"
        "from flowsight.video.probe import UnreadableVideo, probe\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).glob('*.avi')):\n"
        "    try: probe(path)\n"
        "    except UnreadableVideo: pass\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""


def test_opencv_logs_as_before_afterwards(tmp_path: Path) -> None:
    before = cv2.utils.logging.getLogLevel()
    path = write_video(tmp_path / "v.avi", [0, 10])
    outer = decode.decode(path)
    next(outer)
    list(decode.decode(path))  # one inside the other, as threads do
    assert cv2.utils.logging.getLogLevel() == cv2.utils.logging.LOG_LEVEL_SILENT
    outer.close()
    assert cv2.utils.logging.getLogLevel() == before


def test_real_clips_count_as_published(shared_data: Path) -> None:
    with open(shared_data / "clips.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    of_set = {
        name: [row for row in rows if row["dataset"] == name] for name in ("hmdb51", "ucf101")
    }
    lying = [row for row in of_set["hmdb51"] if row["frames"] != row["frames_header"]]
    assert lying  # the trap is there
    for row in (*lying[1:4], *of_set["ucf101"][::15], *rows[-2:]):
        info = probe(shared_data / row["path"])
        found = (info.width, info.height, info.num_frames, info.num_frames_header)
        columns = ("width", "height", "frames", "frames_header")
        assert found == tuple(int(row[column]) for column in columns), row["path"]
        assert info.fps == pytest.approx(float(row["fps"]), abs=0.01)


def test_real_time_stamps_grow(shared_data: Path) -> None:
    path = next((shared_data / "hmdb51" / "videos" / "shoot_bow").glob("*.avi"))
    stamps_sec = [time_sec for time_sec, _ in decode_timed(path)]
    assert np.allclose(np.diff(stamps_sec), 1 / 30, atol=1e-5)
