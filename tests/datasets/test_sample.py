"""The generated data set: bytes, layouts, broken clips, bad numbers."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from flowsight.errors import InputError
from flowsight.samples import rendering

SMALL = {
    "num_groups": 2,
    "num_test_groups": 1,
    "clips_per_group": 1,
    "num_frames": 8,
    "width": 64,
    "height": 64,
    "scene_frames": 40,
    "num_images": 5,
}
FOLDERS = ("clips", "scenes", "images")


def render(folder: Path, *, seed: int = 3, workers: int = 1, **numbers: int) -> dict[str, bytes]:
    """Render a small set; returns what `read_all` reads."""
    rendering.render(
        *(folder / name for name in FOLDERS), seed=seed, workers=workers, **(SMALL | numbers)
    )
    return read_all(folder)


def read_all(folder: Path) -> dict[str, bytes]:
    """Every file's content by its path below the folder."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def count_frames(path: Path) -> tuple[int, int]:
    """Frames that decode, and frames the header promises."""
    capture = cv2.VideoCapture(str(path))
    promised, decoded = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0
    while capture.read()[0]:
        decoded += 1
    return decoded, promised


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small rendered set."""
    out = tmp_path_factory.mktemp("sample")
    render(out)
    return out


def test_same_seed_gives_same_bytes_whatever_the_workers(folder: Path, tmp_path: Path) -> None:
    first = read_all(folder)
    again = render(tmp_path, workers=2)
    assert list(again) == list(first)
    assert [name for name in first if first[name] != again[name]] == []


def test_another_seed_gives_other_pictures(folder: Path, tmp_path: Path) -> None:
    again = render(tmp_path, seed=4)
    for name in ("clips/videos/Walk/v_Walk_g01_c01.avi", "images/Imgs/100001.jpg"):
        assert again[name] != (folder / name).read_bytes()


def test_lists_are_ucf101s(folder: Path) -> None:
    lists = folder / "clips" / "ucfTrainTestlist"
    classes = (lists / "classInd.txt").read_bytes().decode().split("\r\n")
    assert classes[0] == "1 Drink" and classes[7] == "8 Walk" and classes[8:] == [""]
    train = (lists / "trainlist01.txt").read_bytes().decode().split("\r\n")
    assert train[0] == "Drink/v_Drink_g02_c01.avi 1"
    assert "Walk/v_Walk_g02_c01.avi 8" in train
    test = (lists / "testlist01.txt").read_bytes().decode().split("\r\n")[:-1]
    assert test == [f"{name}/v_{name}_g01_c01.avi" for name in rendering.CLASSES]
    listed = {line.split()[0] for line in [*train[:-1], *test]}
    found = {str(path.relative_to(path.parents[1])) for path in folder.glob("clips/videos/*/*.avi")}
    assert listed == found


def test_official_lists_have_the_real_form(folder: Path, shared_data: Path) -> None:
    real = shared_data / "ucf101" / "ucfTrainTestlist"
    for name in ("classInd.txt", "trainlist01.txt", "testlist01.txt"):
        ours = (folder / "clips" / "ucfTrainTestlist" / name).read_bytes()
        theirs = (real / name).read_bytes()
        assert ours.endswith(b"\r\n") == theirs.endswith(b"\r\n")
        assert len(ours.splitlines()[0].split()) == len(theirs.splitlines()[0].split())


def test_sound_clips_decode_whole_and_have_truth(folder: Path) -> None:
    sound = sorted(folder.glob("clips/videos/*/*_c01.avi"))
    assert len(sound) == 8 * 2
    for path in sound:
        assert count_frames(path) == (8, 8)
        with np.load(folder / "clips" / "truth" / path.parent.name / f"{path.stem}.npz") as truth:
            assert sorted(truth) == ["boxes", "flow", "keypoints", "masks"]
            assert truth["masks"].shape == (8, 64, 64) and truth["masks"].dtype == bool
            assert truth["boxes"].shape == (8, 4) and truth["boxes"].dtype == np.float32
            assert truth["keypoints"].shape == (8, 17, 3)
            assert truth["keypoints"].dtype == np.float32
            assert truth["flow"].shape == (7, 2, 64, 64) and truth["flow"].dtype == np.float16


def test_broken_clips_are_broken_as_said(folder: Path) -> None:
    broken = {path.parent.name: path for path in folder.glob("clips/videos/*/*_c02.avi")}
    assert set(broken) == {"Walk", "Drink", "Push", "Kick"}
    assert all("_g01_" not in path.name for path in broken.values())
    assert count_frames(broken["Walk"])[0] == 0 and broken["Walk"].stat().st_size > 200
    assert broken["Drink"].stat().st_size == 0
    assert count_frames(broken["Push"])[0] == 0 and b"not a video" in broken["Push"].read_bytes()
    assert count_frames(broken["Kick"]) == (5, 8)
    truths = {path.parent.name for path in folder.glob("clips/truth/*/*_c02.npz")}
    assert truths == {"Kick"}


def test_a_failed_rendering_leaves_the_old_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in FOLDERS:
        shutil.copytree(folder / name, tmp_path / name)
    before = read_all(tmp_path)
    monkeypatch.setattr(rendering.broken, "write_broken", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        render(tmp_path, seed=9)
    assert read_all(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == set(FOLDERS)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("width", 62),
        ("height", 20),
        ("width", 65),
        ("num_frames", 7),
        ("fps", 0),
        ("num_test_groups", 2),
        ("num_test_groups", 0),
        ("num_groups", 1),
        ("clips_per_group", 0),
        ("scene_frames", 3),
        ("num_images", 0),
    ],
)
def test_bad_numbers_are_named(tmp_path: Path, name: str, number: int) -> None:
    with pytest.raises(InputError, match=f"expected .* got {number}.*sample.{name}"):
        render(tmp_path, **{name: number})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_default_size_stays_under_forty_megabytes(tmp_path: Path) -> None:
    rendering.render(*(tmp_path / name for name in FOLDERS), seed=1)
    total = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert total < 40e6
