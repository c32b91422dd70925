"""Loose JPEG folders to packs and back, byte for byte."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from flowsight.errors import InputError
from flowsight.video import denseflow, pack

JPEG_NAMES = {
    "denseflow": ("img_{:05d}.jpg", "flow_x_{:05d}.jpg", "flow_y_{:05d}.jpg"),
    "tsn": ("img_{:05d}.jpg", "x_{:05d}.jpg", "y_{:05d}.jpg"),
}


def loose(root: Path, naming: str, first: int = 1) -> dict[str, bytes]:
    """Two clips of three frames and two fields; their bytes by relative path."""
    rng = np.random.default_rng(0)
    for clip in ("Golf/v_Golf_g01_c01", "Golf/v_Golf_g01.c02"):
        (root / clip).mkdir(parents=True)
        for pattern, count in zip(JPEG_NAMES[naming], (3, 2, 2), strict=True):
            for index in range(count):
                image = rng.integers(0, 256, (16, 24), dtype=np.uint8)
                (root / clip / pattern.format(index + first)).write_bytes(
                    pack.encode_jpeg(image, 90)
                )
    return contents(root)


def contents(root: Path) -> dict[str, bytes]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("naming", ["denseflow", "tsn"])
def test_round_trip_is_byte_equal(tmp_path: Path, naming: str) -> None:
    before = loose(tmp_path / "loose", naming)
    clip_ids = denseflow.import_folders(
        tmp_path / "loose", frames=tmp_path / "frames", flow=tmp_path / "flow"
    )
    assert clip_ids == ["Golf/v_Golf_g01.c02", "Golf/v_Golf_g01_c01"]
    exported = denseflow.export_folders(
        tmp_path / "back", frames=tmp_path / "frames", flow=tmp_path / "flow", naming=naming
    )
    assert exported == clip_ids
    assert contents(tmp_path / "back") == before


def test_numbering_from_zero_is_shifted(tmp_path: Path) -> None:
    before = loose(tmp_path / "loose", "denseflow", first=0)
    denseflow.import_folders(tmp_path / "loose", frames=tmp_path / "frames")
    with zipfile.ZipFile(tmp_path / "frames" / "Golf" / "v_Golf_g01_c01.zip") as archive:
        assert archive.read("img_00001.jpg") == before["Golf/v_Golf_g01_c01/img_00000.jpg"]


def test_imported_packs_read_like_ours(tmp_path: Path) -> None:
    loose(tmp_path / "loose", "tsn")
    denseflow.import_folders(tmp_path / "loose", frames=tmp_path / "frames", flow=tmp_path / "flow")
    frames, flow = (tmp_path / kind / "Golf" / "v_Golf_g01_c01.zip" for kind in ("frames", "flow"))
    assert pack.read_frames(frames, [0, 2]).shape == (2, 16, 24, 3)
    assert pack.read_flow(flow, [1]).shape == (1, 2, 16, 24)
    assert pack.num_frames(frames) == pack.num_frames(flow) == 3
    meta = pack.read_meta(flow)
    assert (meta["clip_id"], meta["bound_px"]) == ("Golf/v_Golf_g01_c01", 20.0)
    assert meta["timestamps_sec"] == [0.0, 0.04, 0.08]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("gap", "expected number 2"),
        ("no y", "as many flow x"),
        ("stranger", "notes.txt"),
        ("not a jpeg", "expected a JPEG"),
        ("twice", "one file of a number"),
        ("from two", "numbers from 0 or 1"),
    ],
)
def test_wrong_folders_are_refused(tmp_path: Path, change: str, says: str) -> None:
    loose(tmp_path / "loose", "denseflow")
    clip = tmp_path / "loose" / "Golf" / "v_Golf_g01_c01"
    if change == "gap":
        (clip / "img_00002.jpg").unlink()
    elif change == "no y":
        (clip / "flow_y_00002.jpg").unlink()
    elif change == "stranger":
        (clip / "notes.txt").write_text("x")
    elif change == "not a jpeg":
        (clip / "img_00002.jpg").write_text("x")
    elif change == "from two":
        (clip / "img_00001.jpg").unlink()
    else:
        (clip / "img_2.jpg").write_bytes((clip / "img_00002.jpg").read_bytes())
    with pytest.raises(InputError, match=says):
        denseflow.import_folders(tmp_path / "loose", frames=tmp_path / "frames")
    assert not (tmp_path / "frames").exists()


def test_no_folders_no_packs_no_naming(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found none"):
        denseflow.import_folders(tmp_path, frames=tmp_path / "frames")
    with pytest.raises(InputError, match="found none"):
        denseflow.export_folders(tmp_path / "out", frames=tmp_path)
    with pytest.raises(InputError, match="naming"):
        denseflow.export_folders(tmp_path / "out", frames=tmp_path, naming="mmaction")


@pytest.mark.parametrize("name", ["../../evil.jpg", "/etc/evil.jpg", "img_00001.jpg/../x.jpg"])
def test_members_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "frames").mkdir()
    with zipfile.ZipFile(tmp_path / "frames" / "clip.zip", "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(InputError, match="expected only JPEGs"):
        denseflow.export_folders(tmp_path / "out" / "deep", frames=tmp_path / "frames")
    assert not list(tmp_path.rglob("evil.jpg"))
    assert not (tmp_path / "out" / "deep").exists()
