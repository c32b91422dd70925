"""Packs: one stored zip per clip and kind, the same bytes for the same content.

Members are named as the field names them, so any zip tool shows a clip:

| pack | members |
|---|---|
| frames | `img_00001.jpg` ... (RGB), `meta.json` |
| flow | `flow_x_00001.jpg`, `flow_y_00001.jpg` ... (quantised u, v), `meta.json` |
| maps | `maps.npy` uint8 (T, h, w), `meta.json` |

Names count from 1; indices in code count from 0: `flow_x_00001` is u from frame 0 to frame 1.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flowsight.errors import InputError
from flowsight.files import atomic_file

META = "meta.json"
MAPS = "maps.npy"

# of a zip: the end of its directory, an entry of it, what stands before a member's content
_END = struct.Struct("<4s4HLLH")
_ENTRY = struct.Struct("<4s4xHH4xLLLHH10xL")
_LOCAL = struct.Struct("<4s2xHH4xLLLHH")

_BROKEN = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    EOFError,
    KeyError,
    NotImplementedError,  # a compression that zipfile does not know
    RuntimeError,  # encrypted
    ValueError,
    cv2.error,
)


def frame_name(index: int) -> str:
    """Member of frame `index` (0-based)."""
    return f"img_{index + 1:05d}.jpg"


def flow_names(index: int) -> tuple[str, str]:
    """Members of flow field `index` (0-based): u, v."""
    return f"flow_x_{index + 1:05d}.jpg", f"flow_y_{index + 1:05d}.jpg"


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """JPEG bytes of an RGB frame (H, W, 3) or a grey image (H, W), uint8."""
    stored = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    _, data = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()


@contextmanager
def pack_writer(path: Path | str) -> Iterator[Callable[[str, bytes], None]]:
    """Write a pack member by member; the file appears when the block succeeds.

    Yields:
        add(name, content), to be called in the order in which members shall stand.
    """

    def add(name: str, content: bytes) -> None:
        member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
        member.create_system = 3  # the same on every system
        member.external_attr = 0o644 << 16
        member.compress_type = zipfile.ZIP_STORED
        archive.writestr(member, content)

    with atomic_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        yield add


def write_pack(
    path: Path | str, members: Iterable[tuple[str, bytes]], meta: Mapping[str, Any]
) -> None:
    """Write a pack atomically.

    Args:
        path: the file to make.
        members: names and contents, in order.
        meta: plain values for `meta.json`.
    """
    with pack_writer(path) as add:
        for name, content in members:
            add(name, content)
        add(META, meta_bytes(meta))


def meta_bytes(meta: Mapping[str, Any]) -> bytes:
    """`meta.json`: sorted keys, UTF-8, a final newline."""
    text = json.dumps(meta, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def write_maps(path: Path | str, maps: np.ndarray, meta: Mapping[str, Any]) -> None:
    """Write the attention maps of a clip.

    Args:
        path: the pack to make.
        maps: (T, h, w) uint8, index = frame index.
        meta: plain values; `num_maps` is added.

    Raises:
        InputError: another type or shape, or no map.
    """
    if maps.dtype != np.uint8 or maps.ndim != 3 or len(maps) == 0:
        got = f"{maps.dtype} {maps.shape}"
        raise InputError(f"expected maps as uint8 (T, h, w) with T > 0, got {got}, for {path}")
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(maps), allow_pickle=False)
    write_pack(path, [(MAPS, buffer.getvalue())], {**meta, "num_maps": len(maps)})


def read_meta(path: Path | str) -> dict[str, Any]:
    """`meta.json` of a pack.

    Raises:
        InputError: no such file, or not a whole pack.
    """
    with _members(path) as archive:
        return _meta(archive)


def num_frames(path: Path | str) -> int:
    """Frames of the clip, by a frames or flow pack's meta.

    Raises:
        InputError: no such file, not a whole pack, or no count in it.
    """
    with _members(path) as archive:
        return _count(_meta(archive), "num_frames")


def read_frames(path: Path | str, indices: Sequence[int]) -> np.ndarray:
    """Frames by 0-based index; one asked for twice is decoded once.

    Returns:
        (N, H, W, 3) uint8 RGB.

    Raises:
        InputError: no such file, not a whole pack, or an index outside the clip.
    """
    with _members(path) as archive:
        meta = _meta(archive)
        _check_indices(indices, _count(meta, "num_frames"))
        images = {
            index: _image(archive, frame_name(index), cv2.IMREAD_COLOR_RGB)
            for index in sorted(set(indices))
        }
        width, height = _size(meta)
        return _stack([images[index] for index in indices], (height, width, 3))


def read_flow(path: Path | str, indices: Sequence[int]) -> np.ndarray:
    """Flow fields as stored, by 0-based index (field i leads from frame i to i + 1).

    Returns:
        (N, 2, H, W) uint8, u then v, quantised (`flow.quantize.dequantize`).

    Raises:
        InputError: no such file, not a whole pack, or an index outside the clip.
    """
    with _members(path) as archive:
        meta = _meta(archive)
        _check_indices(indices, _count(meta, "num_fields"))
        fields = {
            index: np.stack([_image(archive, n, cv2.IMREAD_GRAYSCALE) for n in flow_names(index)])
            for index in sorted(set(indices))
        }
        width, height = _size(meta)
        return _stack([fields[index] for index in indices], (2, height, width))


def read_maps(path: Path | str, indices: Sequence[int]) -> np.ndarray:
    """Attention maps by frame index; indices beyond the end repeat the last map.

    Returns:
        (N, h, w) uint8.

    Raises:
        InputError: no such file, not a whole pack, or a negative index.
    """
    with _members(path) as archive:
        maps = np.load(io.BytesIO(archive.read(MAPS)), allow_pickle=False)
        if maps.dtype != np.uint8 or maps.ndim != 3 or len(maps) == 0:
            raise ValueError(f"maps.npy holds {maps.dtype} {maps.shape}")
        _check_indices([index for index in indices if index < 0], len(maps))
    return maps[np.minimum(np.asarray(indices, dtype=np.int64), len(maps) - 1)]


@contextmanager
def open_pack(path: Path | str) -> Iterator[zipfile.ZipFile]:
    """Open a pack; whatever is broken in it becomes one InputError that names the file."""
    with _naming(path), zipfile.ZipFile(path) as archive:
        yield archive


@contextmanager
def _naming(path: Path | str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"expected a pack at {path}, found no such file; make it again") from None
    except OSError as error:
        raise InputError(f"cannot read the pack {path}: {error.strerror or error}") from None
    except _BROKEN as error:
        detail = error.args[0] if error.args else type(error).__name__
        raise InputError(f"expected a whole pack at {path}, got: {detail}; make it again") from None


class _Members:
    """Members of a plain stored zip, each found by its name in the zip's directory.

    zipfile makes an object of every member before it reads one, which for a flow pack took longer
    than decoding a stack. Whatever is not as `pack_writer` has it, damage too, is left to zipfile.
    """

    def __init__(self, path: Path | str, file: io.FileIO) -> None:
        self._path, self._file = path, file
        self._directory = self._find_directory()

    def _at(self, start: int, size: int) -> bytes:
        self._file.seek(start)
        return self._file.read(size)

    def _find_directory(self) -> bytes:
        size = self._file.seek(0, io.SEEK_END)
        if size < _END.size:
            return b""
        end = _END.unpack(self._at(size - _END.size, _END.size))
        signature, _, _, _, _, length, start, comment = end
        plain = signature == b"PK\5\6" and comment == 0 and start + length + _END.size == size
        return self._at(start, length) if plain else b""

    def read(self, name: str) -> bytes:
        """A member's content.

        Raises:
            KeyError, zipfile.BadZipFile, ...: whatever zipfile says of it.
        """
        found = self._stored(name.encode("ascii"))
        if found is not None:
            return found
        with zipfile.ZipFile(self._path) as archive:
            return archive.read(name)

    def _stored(self, name: bytes) -> bytes | None:
        start = self._directory.rfind(name) - _ENTRY.size
        if start < 0:
            return None
        entry = _ENTRY.unpack_from(self._directory, start)
        signature, flags, method, crc, packed, size, length, extra, offset = entry
        plain = signature == b"PK\1\2" and (flags, method, extra) == (0, 0, 0) and packed == size
        if not plain or length != len(name):
            return None
        stored = self._at(offset, _LOCAL.size + length + size)
        if len(stored) != _LOCAL.size + length + size:
            return None
        signature, flags, method, *_, extra = _LOCAL.unpack_from(stored)
        content = stored[_LOCAL.size + length :]
        plain = signature == b"PK\3\4" and (flags, method, extra) == (0, 0, 0)
        if not plain or not stored.startswith(name, _LOCAL.size) or zlib.crc32(content) != crc:
            return None
        return content


@contextmanager
def _members(path: Any) -> Iterator[_Archive]:
    if not isinstance(path, (str, Path)):  # a pack in memory
        with open_pack(path) as archive:
            yield archive
        return
    with _naming(path), io.FileIO(path) as file:
        yield _Members(path, file)


_Archive = _Members | zipfile.ZipFile


def _meta(archive: _Archive) -> dict[str, Any]:
    meta = json.loads(archive.read(META))
    if not isinstance(meta, dict):
        raise ValueError("meta.json is not a mapping")
    return meta


def _count(meta: Mapping[str, Any], key: str) -> int:
    count = meta.get(key)
    if not isinstance(count, int) or count < 0:
        raise ValueError(f"meta.json gives {key} as {count!r}")
    return count


def _size(meta: Mapping[str, Any]) -> tuple[int, int]:
    match meta.get("size"):
        case [int(width), int(height)]:
            return width, height
    raise ValueError(f"meta.json gives size as {meta.get('size')!r}")


def _check_indices(indices: Iterable[int], count: int) -> None:
    for index in indices:
        if not 0 <= index < count:
            raise ValueError(f"index {index} was asked for, it holds 0..{count - 1}")


def _image(archive: _Archive, name: str, flags: int) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), flags)
    if image is None:
        raise ValueError(f"{name} is not an image")
    return image


def _stack(images: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    for image in images:
        if image.shape != shape:
            raise ValueError(f"an image of shape {image.shape} where meta.json says {shape}")
    return np.stack(images) if images else np.zeros((0, *shape), np.uint8)
