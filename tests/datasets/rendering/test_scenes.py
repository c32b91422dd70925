"""Static-camera sequences: CDnet's layout and values, and truth that fits the picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from flowsight.samples import scenes

NAMES = ("shadow/room", "baseline/street")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes")
    scenes.render(out, seed=2, num_frames=48, shape=(96, 128))
    return out


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image


@pytest.mark.parametrize("name", NAMES)
def test_layout_is_cdnets(folder: Path, name: str) -> None:
    sequence = folder / name
    inputs = sorted(path.name for path in (sequence / "input").iterdir())
    truths = sorted(path.name for path in (sequence / "groundtruth").iterdir())
    assert inputs == [f"in{number:06d}.jpg" for number in range(1, 49)]
    assert truths == [f"gt{number:06d}.png" for number in range(1, 49)]
    assert (sequence / "temporalROI.txt").read_text() == "13 48"
    region = read(sequence / "ROI.bmp")
    assert region.shape == (96, 128) and set(np.unique(region)) == {0, 255}
    assert read(sequence / "ROI.jpg").shape == (96, 128, 3)


@pytest.mark.parametrize("name", NAMES)
def test_all_five_values_occur(folder: Path, name: str) -> None:
    sequence = folder / name
    truths = np.stack([read(path) for path in sorted((sequence / "groundtruth").iterdir())])
    assert set(np.unique(truths)) == {0, 50, 85, 170, 255}
    assert (truths[:12] == 85).all()
    region = read(sequence / "ROI.bmp") == 255
    assert (truths[12:][:, ~region] == 85).all()
    assert (truths[12:][:, region] != 85).all()
    for value in (50, 170, 255):
        assert (truths[12:] == value).any(axis=(1, 2)).mean() > 0.3


@pytest.mark.parametrize("name", NAMES)
def test_truth_fits_the_pictures(folder: Path, name: str) -> None:
    """Static pixels look like the sequence's median, moving ones do not, shadows are darker."""
    sequence = folder / name
    images = np.stack([read(path) for path in sorted((sequence / "input").iterdir())]).astype(float)
    truths = np.stack([read(path) for path in sorted((sequence / "groundtruth").iterdir())])
    place = np.median(images, axis=0)
    change = np.abs(images - place).mean(axis=3)
    darker = (images / np.maximum(place, 1)).mean(axis=3)
    assert np.percentile(change[truths == 0], 95) < 12
    assert np.median(change[truths == 255]) > 12
    assert 0.4 < np.median(darker[truths == 50]) < 0.8


def test_files_have_the_real_form(folder: Path, shared_data: Path) -> None:
    real = shared_data / "cdnet2012" / "baseline" / "highway"
    ours = folder / "baseline" / "street"
    for name in ("ROI.bmp", "ROI.jpg", "input/in000001.jpg"):
        assert read(ours / name).ndim == read(real / name).ndim
    first, last = (real / "temporalROI.txt").read_text().split()
    assert int(first) < int(last)
    sizes = {path.name[:2] for path in (real / "groundtruth").iterdir()}
    assert sizes == {path.name[:2] for path in (ours / "groundtruth").iterdir()}
