"""Tiny videos and data sets, drawn in a moment."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

ACTIONS = ("Jump", "Run", "Wave")


@pytest.fixture(scope="session")
def write_video() -> Callable[..., Path]:
    """write_video(path, num_frames=3): a 48 x 32 Motion-JPEG clip unlike any other path's."""

    def write(path: Path, num_frames: int = 3) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        fourcc = cv2.VideoWriter.fourcc(*"MJPG")
        writer = cv2.VideoWriter(str(path), fourcc, 12.0, (48, 32))
        colour = zlib.crc32(path.name.encode()) & 0xFFFFFF
        for index in range(num_frames):
            frame = np.full((32, 48, 3), (colour & 255, colour >> 8 & 255, colour >> 16), np.uint8)
            frame[:, 4 * index : 4 * index + 4] = 255
            writer.write(frame)
        writer.release()
        return path

    return write


@pytest.fixture
def ucf(tmp_path: Path, write_video: Callable[..., Path]) -> Callable[..., Path]:
    """ucf(groups=4, eol="\\n"): a data set in UCF-101's layout; group 1 is for testing."""

    def make(groups: int = 4, eol: str = "\n", name: str = "tiny") -> Path:
        raw = tmp_path / "raw" / name
        lists: dict[str, list[str]] = {"trainlist01": [], "testlist01": []}
        for index, action in enumerate(ACTIONS, start=1):
            for group in range(1, groups + 1):
                clip = f"{action}/v_{action}_g{group:02d}_c01.avi"
                write_video(raw / "videos" / clip)
                lists["testlist01" if group == 1 else "trainlist01"].append(
                    clip if group == 1 else f"{clip} {index}"
                )
        lists["classInd"] = [f"{i} {action}" for i, action in enumerate(ACTIONS, start=1)]
        folder = raw / "ucfTrainTestlist"
        folder.mkdir()
        for stem, lines in lists.items():
            text = "".join(line + eol for line in lines)
            (folder / f"{stem}.txt").write_bytes(text.encode())
        return raw

    return make
