"""Folders in changedetection.net's layout, made by hand and with every fault."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from flowsight.datasets.scenes import videos
from flowsight.datasets.scenes.videos import open_video
from flowsight.errors import InputError
from flowsight.samples import scenes

ID = "baseline/street"
SHAPE = (6, 8)


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Ten frames of 8 x 6 px, frame i of grey 10 i; scored from number 3 to number 9."""
    folder = tmp_path / ID
    for number in range(1, 11):
        write(folder / f"input/in{number:06d}.jpg", np.full(SHAPE, 10 * number, np.uint8))
        truth = np.zeros(SHAPE, np.uint8)
        truth[0, :5] = (0, 50, 85, 170, 255)
        truth[5, 5] = 255
        write(folder / f"groundtruth/gt{number:06d}.png", truth)
    region = np.full(SHAPE, 255, np.uint8)
    region[5] = 0
    write(folder / "ROI.bmp", region)
    write(folder / "ROI.jpg", np.zeros(SHAPE, np.uint8))
    (folder / "temporalROI.txt").write_text("3 9\n")
    return folder


def test_a_video_is_read(video: Path, tmp_path: Path) -> None:
    found = open_video(tmp_path, ID)
    assert (len(found), found.shape, found.temporal_roi) == (10, (6, 8), range(2, 9))
    assert found.item_id(2) == "baseline/street/000003"
    assert [int(frame.mean().round()) for frame in videos.frames(found)] == [
        10 * number for number in range(1, 11)
    ]
    truth = videos.read_truth(found, 4)
    assert truth[0].tolist() == [0, 50, 85, 170, 255, 0, 0, 0]
    assert (truth[5] == 85).all()  # outside the region of interest
    assert [path.name for path in found.truths[:2]] == ["gt000001.png", "gt000002.png"]


def test_the_first_half_of_the_truth_trains(video: Path, tmp_path: Path) -> None:
    assert open_video(tmp_path, ID).halves() == (range(2, 5), range(5, 9))


def test_a_truth_in_colour_is_the_same(video: Path, tmp_path: Path) -> None:
    grey = videos.read_truth(open_video(tmp_path, ID), 4)
    path = video / "groundtruth/gt000005.png"
    write(path, cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), cv2.COLOR_GRAY2BGR))
    assert (videos.read_truth(open_video(tmp_path, ID), 4) == grey).all()


def all_truths(root: Path) -> None:
    video = open_video(root, ID)
    videos.read_truths(video, video.temporal_roi)


def grey(path: str, value: int, shape: tuple[int, int] = SHAPE) -> Callable[[Path], None]:
    return lambda folder: write(folder / path, np.full(shape, value, np.uint8))


def text(content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "temporalROI.txt").write_text(content) and None


def all_truths_of(value: int) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        for path in (folder / "groundtruth").iterdir():
            write(path, np.full(SHAPE, value, np.uint8))

    return fill


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (lambda f: shutil.rmtree(f), "expected the video baseline/street in .*scenes"),
    "no input": (
        lambda f: shutil.rmtree(f / "input"),
        r"expected in000001\.jpg, \.\.\. in .*input",
    ),
    "missing frame": (
        lambda f: (f / "input/in000004.jpg").unlink(),
        "numbered 1 to 10 without a gap, found no number 4",
    ),
    "missing truth": (lambda f: (f / "groundtruth/gt000001.png").unlink(), "found no number 1;"),
    "fewer truths": (
        lambda f: (f / "groundtruth/gt000010.png").unlink(),
        "expected a truth for each of the 10 frames in .*found 9",
    ),
    "truth of another size": (
        grey("groundtruth/gt000005.png", 0, (8, 6)),
        r"expected a picture of 8x6 px, as ROI.bmp, in .*gt000005\.png, got 6x8",
    ),
    "other levels": (grey("groundtruth/gt000005.png", 77), r"got 77, in .*gt000005\.png"),
    "broken truth": (
        lambda f: (f / "groundtruth/gt000005.png").write_bytes(b"no picture"),
        r"expected a picture in .*gt000005\.png",
    ),
    "empty truth file": (
        lambda f: (f / "groundtruth/gt000005.png").write_bytes(b""),
        r"expected a picture in .*gt000005\.png",
    ),
    "nothing moves": (
        all_truths_of(0),
        "expected moving pixels .*street, frames 3 to 9, found none",
    ),
    "nothing is scored": (
        all_truths_of(170),
        "expected scored pixels in the truth of .*found none",
    ),
    "no region": (
        lambda f: (f / "ROI.bmp").unlink(),
        r"expected the region of interest in .*ROI\.bmp, found no such file",
    ),
    "black region": (grey("ROI.bmp", 0), "expected white pixels in .*ROI.bmp"),
    "no temporal region": (
        lambda f: (f / "temporalROI.txt").unlink(),
        r"expected the first and the last scored frame in .*temporalROI\.txt",
    ),
    "beyond the end": (text("3 11"), "within 1..10 in .*, got 3 11; correct it"),
    "from zero": (text("0 9"), "got 0 9"),
    "backwards": (text("9 3"), "got 9 3"),
    "no numbers": (text("three nine"), "got 'three nine'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(fault: str, video: Path, tmp_path: Path) -> None:
    all_truths(tmp_path)  # sound before
    spoil, says = FAULTS[fault]
    spoil(video)
    with pytest.raises(InputError, match=says) as error:
        all_truths(tmp_path)
    assert "\n" not in str(error.value)


def test_a_frame_of_another_size(video: Path, tmp_path: Path) -> None:
    write(video / "input/in000010.jpg", np.zeros((6, 9), np.uint8))
    with pytest.raises(InputError, match=r"8x6 px.*in000010\.jpg, got 9x6"):
        list(videos.frames(open_video(tmp_path, ID)))


@pytest.mark.parametrize("name", ["../elsewhere", "baseline/..", "/etc"])
def test_names_stay_in_the_data_set(name: str, video: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a plain file or class name"):
        open_video(tmp_path / "baseline", name)


def test_the_median_is_the_place_without_what_passes() -> None:
    rng = np.random.default_rng(0)
    place = rng.integers(0, 256, SHAPE).astype(np.uint8)
    images = [place.copy() for _ in range(7)]
    for index, image in enumerate(images[:6]):
        image[index] = 255 - image[index]  # something crosses, a row a frame
    assert (videos.median_background(images) == place).all()
    two = [np.array([[3, 9]], np.uint8), np.array([[5, 7]], np.uint8)]
    assert videos.median_background(two).tolist() == [[3, 7]]


def test_the_samples_scenes_are_read(tmp_path: Path) -> None:
    scenes.render(tmp_path, seed=1, num_frames=12, shape=(48, 64))
    for name in ("baseline/street", "shadow/room"):
        video = open_video(tmp_path, name)
        assert (len(video), video.temporal_roi, video.shape) == (12, range(3, 12), (48, 64))
        assert (videos.read_truth(video, 2)[~video.region] == 85).all()


@pytest.mark.parametrize(
    ("name", "num_frames", "shape", "scored", "moving"),
    [
        # read once with an independent loop over all files of the data set (numpy, bincount)
        ("highway", 1700, (240, 320), range(469, 1700), 5_457_989),
        ("pedestrians", 1099, (240, 360), range(299, 1099), 670_862),
    ],
)
def test_real_videos(
    name: str, num_frames: int, shape: tuple[int, int], scored: range, moving: int,
    shared_data: Path,
) -> None:  # fmt: skip
    video = open_video(shared_data / "cdnet2012", f"baseline/{name}")
    assert (len(video), video.shape, video.temporal_roi) == (num_frames, shape, scored)
    assert video.region.all()
    few = range(scored.start, scored.stop, 100)  # all take 2 s
    count = sum(int((videos.read_truth(video, index) == 255).sum()) for index in few)
    assert count == pytest.approx(moving * len(few) / len(scored), rel=0.35)
    assert (videos.read_truth(video, scored.start - 1) == 85).all()
