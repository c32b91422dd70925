"""Maps between key frames: exact where nothing moves, and they follow what does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flowsight.errors import InputError
from flowsight.flow.quantize import quantize
from flowsight.systems.two_stream.maps import key_frames
from flowsight.systems.two_stream.maps.key_frames import EVERY_FRAME, KeyFrames, between
from flowsight.video import pack

HEIGHT, WIDTH, CELL = 48, 96, 8  # of the video; a map's pixel is 8 px


def blob(x: float, y: float = 3.0, shape: tuple[int, int] = (6, 12)) -> np.ndarray:
    """A round map with its peak at (x, y), in the map's px."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 3).astype(np.float32)


def moving(speed_px: float, count: int) -> np.ndarray:
    fields = np.zeros((count, 2, HEIGHT, WIDTH), np.float32)
    fields[:, 0] = speed_px
    return fields


def centre(attention: np.ndarray) -> float:
    """Mean column, weighted."""
    columns = np.arange(attention.shape[1])
    return float((attention.sum(axis=0) * columns).sum() / attention.sum())


def test_key_frames_of_a_clip() -> None:
    assert list(KeyFrames(every=4).indices(10)) == [0, 4, 8, 9]
    assert list(KeyFrames(every=4).indices(9)) == [0, 4, 8]
    assert list(KeyFrames(every=4).indices(1)) == [0]
    assert EVERY_FRAME.indices(3) == range(3)


def test_nothing_moves_nothing_changes() -> None:
    rng = np.random.default_rng(0)
    one = rng.random((6, 12), dtype=np.float32)
    one /= one.max()
    filled = between(np.stack([one, one]), [0, 4], moving(0, 4))
    assert filled.shape == (5, 6, 12) and filled.dtype == np.float32
    for attention in filled:
        np.testing.assert_allclose(attention, one, atol=1e-6)


def test_without_flow_maps_are_mixed_by_nearness() -> None:
    first, last = blob(2), blob(9)
    filled = between(np.stack([first, last]), [0, 4], None)
    np.testing.assert_array_equal(filled[0], first)
    np.testing.assert_array_equal(filled[4], last)
    expected = 0.75 * first + 0.25 * last
    np.testing.assert_allclose(filled[1], expected / expected.max(), rtol=1e-6)


@pytest.mark.parametrize("direction", [1, -1])
def test_a_map_follows_the_motion(direction: int) -> None:
    start = 4 if direction > 0 else 8
    true = np.stack([blob(start + direction * t * 0.75) for t in range(5)])  # 6 px a frame
    ends = true[[0, 4]]
    carried = between(ends, [0, 4], moving(direction * 0.75 * CELL, 4))
    mixed = between(ends, [0, 4], None)
    for t in (1, 2, 3):
        assert centre(carried[t]) == pytest.approx(centre(true[t]), abs=0.15)
        # mixing leaves two weaker blobs where one should be
        error = np.abs(carried[t] - true[t]).mean()
        assert error < 0.35 * np.abs(mixed[t] - true[t]).mean()


def test_motion_that_is_not_the_same_everywhere() -> None:
    """Flow where the object is: it must be looked up where the object has gone."""
    true = np.stack([blob(3 + t) for t in range(5)])  # 8 px a frame, in a still surrounding
    fields = np.zeros((4, 2, HEIGHT, WIDTH), np.float32)
    for t, field in enumerate(fields):
        x = (3 + t) * CELL
        field[0, 4:44, max(x - 16, 0) : x + 24] = CELL
    filled = between(true[[0, 4]], [0, 4], fields)
    mixed = between(true[[0, 4]], [0, 4], None)
    for t in (1, 2, 3):
        assert np.unravel_index(filled[t].argmax(), filled[t].shape)[1] == 3 + t
        assert np.abs(filled[t] - true[t]).mean() < 0.6 * np.abs(mixed[t] - true[t]).mean()


def test_in_unit_range_and_zero_stays_zero() -> None:
    rng = np.random.default_rng(1)
    maps = rng.random((3, 6, 12), dtype=np.float32)
    maps /= maps.max(axis=(1, 2), keepdims=True)
    fields = rng.normal(0, 20, (6, 2, HEIGHT, WIDTH)).astype(np.float32)
    filled = between(maps, [0, 4, 6], fields)
    assert filled.min() >= 0
    np.testing.assert_array_equal(filled.max(axis=(1, 2)), np.ones(7, np.float32))
    np.testing.assert_array_equal(filled[[0, 4, 6]], maps)
    assert not between(np.zeros((2, 6, 12), np.float32), [0, 3], fields[:3]).any()


def test_fill_reads_the_clips_flow(tmp_path: Path) -> None:
    fields = moving(6, 4)
    names = [n for t in range(4) for n in pack.flow_names(t)]
    levels = [quantize(f, 20.0) for field in fields for f in field]
    jpegs = [(n, pack.encode_jpeg(q, 95)) for n, q in zip(names, levels, strict=True)]
    meta = {"size": [WIDTH, HEIGHT], "num_fields": 4, "bound_px": 20.0}
    pack.write_pack(tmp_path / "flow/0/kick/a.zip", jpegs, meta)
    keys = KeyFrames(every=4, packs=tmp_path / "frames", flow=tmp_path / "flow")
    ends = np.stack([blob(4), blob(7)])
    filled = keys.fill(ends, 5, tmp_path / "frames/0/kick/a.zip")
    expected = between(ends, [0, 4], key_frames.read_fields(tmp_path / "flow/0/kick/a.zip", 5))
    np.testing.assert_array_equal(filled, expected)
    assert centre(filled[2]) == pytest.approx(5.5, abs=0.2)
    with pytest.raises(InputError, match=r"b\.zip"):
        keys.fill(ends, 5, tmp_path / "frames/0/kick/b.zip")
    assert EVERY_FRAME.fill(ends, 2, tmp_path / "x.zip") is ends
