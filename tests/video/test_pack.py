"""Packs: exact round trips, the same bytes, and one clear error for whatever is broken."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from flowsight.errors import InputError
from flowsight.video import pack


def texture(seed: int, channels: int = 3) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (24, 32, channels), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


def frames_pack(path: Path, count: int = 4) -> Path:
    members = [(pack.frame_name(i), pack.encode_jpeg(texture(i), 95)) for i in range(count)]
    pack.write_pack(path, members, {"num_frames": count, "size": [32, 24]})
    return path


def flow_pack(path: Path, count: int = 3) -> Path:
    members = []
    for index in range(count):
        for axis, name in enumerate(pack.flow_names(index)):
            members.append((name, pack.encode_jpeg(texture(10 * index + axis, 1)[:, :], 95)))
    pack.write_pack(path, members, {"num_frames": count + 1, "num_fields": count, "size": [32, 24]})
    return path


def test_names_count_from_one() -> None:
    assert pack.frame_name(0) == "img_00001.jpg"
    assert pack.flow_names(99_999) == ("flow_x_100000.jpg", "flow_y_100000.jpg")


def test_frames_are_exactly_what_the_jpegs_hold(tmp_path: Path) -> None:
    path = frames_pack(tmp_path / "c.zip")
    found = pack.read_frames(path, [2, 0, 2])
    assert found.shape == (3, 24, 32, 3)
    assert found.dtype == np.uint8
    with zipfile.ZipFile(path) as archive:
        for got, name in zip(found, ("img_00003.jpg", "img_00001.jpg"), strict=False):
            bgr = cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_COLOR)
            assert (got == bgr[:, :, ::-1]).all()
    assert np.abs(found[0].astype(int) - texture(2)).mean() < 4
    assert pack.num_frames(path) == 4


def test_flow_is_exactly_what_the_jpegs_hold(tmp_path: Path) -> None:
    path = flow_pack(tmp_path / "c.zip")
    found = pack.read_flow(path, [1, 1, 0])
    assert found.shape == (3, 2, 24, 32)
    assert (found[0] == found[1]).all()
    with zipfile.ZipFile(path) as archive:
        for axis, name in enumerate(("flow_x_00002.jpg", "flow_y_00002.jpg")):
            data = np.frombuffer(archive.read(name), np.uint8)
            assert (found[0, axis] == cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)).all()
    assert pack.num_frames(path) == 4


def test_nothing_asked_gives_nothing(tmp_path: Path) -> None:
    assert pack.read_frames(frames_pack(tmp_path / "c.zip"), []).shape == (0, 24, 32, 3)
    assert pack.read_flow(flow_pack(tmp_path / "f.zip"), []).shape == (0, 2, 24, 32)


def test_maps_repeat_the_last(tmp_path: Path) -> None:
    maps = np.arange(3 * 5 * 7, dtype=np.uint8).reshape(3, 5, 7)
    pack.write_maps(tmp_path / "m.zip", maps, {"clip_id": "A/b"})
    assert (pack.read_maps(tmp_path / "m.zip", [0, 2, 5, 1]) == maps[[0, 2, 2, 1]]).all()
    assert pack.read_meta(tmp_path / "m.zip") == {"clip_id": "A/b", "num_maps": 3}
    with pytest.raises(InputError, match="-1"):
        pack.read_maps(tmp_path / "m.zip", [-1])
    for wrong in (maps.astype(float), maps[0], maps[:0]):
        with pytest.raises(InputError, match="uint8"):
            pack.write_maps(tmp_path / "wrong.zip", wrong, {})
    assert not (tmp_path / "wrong.zip").exists()


def test_same_content_gives_same_bytes(tmp_path: Path) -> None:
    one, two = frames_pack(tmp_path / "one.zip"), frames_pack(tmp_path / "other_name.zip")
    assert one.read_bytes() == two.read_bytes()
    with zipfile.ZipFile(one) as archive:
        members = archive.infolist()
    assert {member.date_time for member in members} == {(1980, 1, 1, 0, 0, 0)}
    assert {member.compress_type for member in members} == {zipfile.ZIP_STORED}
    assert [member.filename for member in members][-1] == "meta.json"


def test_failing_writer_leaves_the_old_pack(tmp_path: Path) -> None:
    path = frames_pack(tmp_path / "c.zip")
    before = path.read_bytes()
    with pytest.raises(RuntimeError), pack.pack_writer(path) as add:
        add("img_00001.jpg", b"x")
        raise RuntimeError
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def damaged(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


META = json.dumps({"num_frames": 1, "size": [32, 24]}).encode()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a zip"),
        (b"hello", "not a zip"),
        (damaged({"img_00001.jpg": b"x"}), "meta.json"),
        (damaged({"meta.json": b"{"}), "Expecting"),
        (damaged({"meta.json": b"[]"}), "mapping"),
        (damaged({"meta.json": b'{"num_frames": "3"}'}), "num_frames"),
        (damaged({"meta.json": META}), "img_00001.jpg"),
        (damaged({"meta.json": META, "img_00001.jpg": b"not a jpeg"}), "not an image"),
        (damaged({"meta.json": b'{"num_frames": 0}'}), "index 0"),
        (
            damaged({"meta.json": b'{"num_frames": 1}', "img_00001.jpg": b"\xff\xd8"}),
            "img_00001.jpg is not an image",
        ),
        (
            damaged({"meta.json": META, "img_00001.jpg": pack.encode_jpeg(texture(0)[:9], 90)}),
            "shape",
        ),
    ],
)
def test_broken_packs_name_the_file(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "broken.zip"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.zip") as caught:
        pack.read_frames(path, [0])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pack_is_read_without_listing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, flow = frames_pack(tmp_path / "frames.zip"), flow_pack(tmp_path / "flow.zip")
    expected = pack.read_frames(frames, [3, 0]), pack.read_flow(flow, [2, 1])

    def refuse(*_: object) -> None:
        raise AssertionError("zipfile lists all members before it reads one")

    monkeypatch.setattr(zipfile, "ZipFile", refuse)
    found = pack.read_frames(frames, [3, 0]), pack.read_flow(flow, [2, 1])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def repacked(whole: bytes, **options: object) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as source, zipfile.ZipFile(buffer, "w") as archive:
        for member in source.infolist():
            archive.writestr(member.filename, source.read(member), **options)  # type: ignore[arg-type]
        archive.comment = b"made by hand" if not options else b""
    return buffer.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        lambda whole: repacked(whole),
        lambda whole: repacked(whole, compress_type=zipfile.ZIP_DEFLATED),
        lambda whole: b"something before" + whole,
    ],
    ids=["with a comment", "compressed", "something before"],
)
def test_other_tools_zips_are_read_too(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    path = flow_pack(tmp_path / "flow.zip")
    expected = pack.read_flow(path, [2, 0])
    path.write_bytes(change(path.read_bytes()))
    np.testing.assert_array_equal(pack.read_flow(path, [2, 0]), expected)


def test_a_name_that_ends_another_is_not_taken_for_it(tmp_path: Path) -> None:
    path = tmp_path / "c.zip"
    jpegs = [pack.encode_jpeg(texture(seed), 95) for seed in (1, 2)]
    names = ("img_00001.jpg", "x_img_00001.jpg")
    meta = {"num_frames": 1, "size": [32, 24]}
    pack.write_pack(path, zip(names, jpegs, strict=True), meta)
    found = pack.read_frames(path, [0])
    pack.write_pack(path, [("img_00001.jpg", jpegs[0])], meta)
    np.testing.assert_array_equal(found, pack.read_frames(path, [0]))


@pytest.mark.parametrize("index", [0, 2])
def test_a_flipped_bit_in_a_jpeg_is_found(tmp_path: Path, index: int) -> None:
    path = frames_pack(tmp_path / "c.zip")
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo(pack.frame_name(index)).header_offset
    content = bytearray(path.read_bytes())
    content[start + 300] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"c\.zip, got: Bad CRC-32 for file 'img_0000"):
        pack.read_frames(path, [index])


def test_missing_pack_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.zip", tmp_path):
        with pytest.raises(InputError, match=str(path)):
            pack.read_meta(path)


@pytest.mark.parametrize("index", [-1, 4])
def test_index_outside_the_clip(tmp_path: Path, index: int) -> None:
    with pytest.raises(InputError, match=r"0\.\.3"):
        pack.read_frames(frames_pack(tmp_path / "c.zip"), [index])


def read_all(path: Path) -> None:
    pack.read_frames(path, [0, 1])


def read_maps(path: Path) -> None:
    pack.read_maps(path, [0])


@pytest.mark.parametrize("read", [read_all, read_maps])
def test_damage_anywhere_is_an_input_error(tmp_path: Path, read: Callable[[Path], None]) -> None:
    path = tmp_path / "c.zip"
    if read is read_all:
        frames_pack(path, 2)
    else:
        pack.write_maps(path, np.zeros((2, 3, 4), np.uint8), {"clip_id": "A/b"})
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(300):
        content = bytearray(whole[: rng.integers(len(whole))] if rng.random() < 0.2 else whole)
        for position in rng.integers(0, max(len(content), 1), 3):
            if content:
                content[position] = rng.integers(256)
        path.write_bytes(content)
        try:
            read(path)
        except InputError as error:
            assert "c.zip" in str(error)
