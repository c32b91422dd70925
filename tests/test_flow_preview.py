"""`flowsight flow --preview` and the denseflow commands, as a user calls them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from flowsight.video import pack

from .test_packing import moving_video


def flowsight(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flowsight.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return moving_video(tmp_path / "walk.avi", 8)


def test_preview_shows_the_motion(video: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "walk.zip"
    done = flowsight("flow", video, "--out", out, "--preset", "fast", "--preview")
    assert (done.returncode, done.stderr) == (0, "")
    assert "walk.png" in done.stdout
    picture = cv2.imread(str(out.with_suffix(".png")))
    assert picture.shape[1] == 64 + 4 + 64
    # the motion is (2, 1) px: right and a little down, reds; the frame's half is grey noise
    flow_half = picture[22 + 10 : 22 + 38, 68 + 10 : 68 + 54].reshape(-1, 3)
    blue, _, red = np.median(flow_half, axis=0)
    assert red > blue + 50
    film = cv2.VideoCapture(str(out.with_suffix(".webm")))
    count = 0
    while film.read()[0]:
        count += 1
    assert count == 7
    assert sorted(p.name for p in out.parent.iterdir()) == ["walk.png", "walk.webm", "walk.zip"]


def test_size_and_quality(video: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.zip"
    arguments = ["--method", "dis", "--size", 80, 40, "--quality", 70]
    assert flowsight("flow", video, "--out", out, *arguments).returncode == 0
    meta = pack.read_meta(out)
    assert (meta["size"], meta["quality"], meta["method"]) == ([80, 40], 70, "dis")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--preset", "slow"], "preset"),
        (["--backend", "cuda"], "backend"),
        (["--size", "8", "8"], "16 px"),
        (["--bound-px", "-1"], "bound_px"),
    ],
)
def test_wrong_settings_are_one_line(
    video: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    done = flowsight("flow", video, "--out", tmp_path / "o.zip", *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: expected")
    assert says in done.stderr
    assert not (tmp_path / "o.zip").exists()


def test_to_denseflow_and_back(video: Path, tmp_path: Path) -> None:
    packs, loose, again = tmp_path / "flow", tmp_path / "loose", tmp_path / "again"
    flowsight("flow", video, "--out", packs / "Walk" / "a.zip", "--preset", "fast")
    done = flowsight("export-denseflow", loose, "--flow", packs, "--naming", "tsn")
    assert (done.returncode, done.stdout) == (0, f"{loose}: 1 clips\n")
    assert (loose / "Walk" / "a" / "x_00007.jpg").is_file()
    done = flowsight("import-denseflow", loose, "--flow", again, "--bound-px", 20, "--fps", 10)
    assert done.returncode == 0
    indices = list(range(7))
    stored = pack.read_flow(packs / "Walk" / "a.zip", indices)
    assert (pack.read_flow(again / "Walk" / "a.zip", indices) == stored).all()
    done = flowsight("import-denseflow", loose)
    assert done.returncode == 2
    assert "--frames" in done.stderr
