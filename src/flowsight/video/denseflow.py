"""Loose folders of JPEGs, as denseflow and TSN's tools write them, to packs and back.

    <root>/<class>/<stem>/img_00001.jpg, flow_x_00001.jpg, flow_y_00001.jpg      (denseflow)
    <root>/<class>/<stem>/img_00001.jpg, x_00001.jpg, y_00001.jpg                (TSN)

JPEG bytes are copied unchanged both ways. Numbering may start at 0 or 1 when read; it starts
at 1 when written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flowsight import files, progress
from flowsight.errors import InputError
from flowsight.flow.quantize import check_bound
from flowsight.video import pack

NAMINGS = {
    "denseflow": {"img": "img_", "flow_x": "flow_x_", "flow_y": "flow_y_"},
    "tsn": {"img": "img_", "flow_x": "x_", "flow_y": "y_"},
}
_KINDS = {
    "img": "img",
    "image": "img",
    "flow_x": "flow_x",
    "x": "flow_x",
    "flow_y": "flow_y",
    "y": "flow_y",
}
_LOOSE = re.compile(r"(img|image|flow_x|flow_y|x|y)_(\d{1,9})\.jpe?g")
_PACKED = re.compile(r"(img|flow_x|flow_y)_(\d{5,9})\.jpg")


def import_folders(
    root: Path | str,
    *,
    frames: Path | str | None = None,
    flow: Path | str | None = None,
    bound_px: float = 20.0,
    fps: float = 25.0,
) -> list[str]:
    """Turn loose folders into packs.

    Args:
        root: `<class>/<stem>/` folders of JPEGs.
        frames: folder for frames packs; None leaves the RGB frames aside.
        flow: folder for flow packs; None leaves the flow aside.
        bound_px: the bound the flow was quantised with (denseflow's `-b`).
        fps: frames per second of the videos, for the time stamps.

    Returns:
        clip_ids (`<class>/<stem>`), sorted.

    Raises:
        InputError: no folder, no JPEGs, an unknown file, a gap in the numbers, or x without y.
    """
    check_bound(bound_px)
    root = Path(root)
    folders = sorted(path for path in root.glob("*/*") if path.is_dir())
    if not folders:
        raise InputError(f"expected folders <class>/<stem> of JPEGs below {root}, found none")
    clips = {f"{path.parent.name}/{path.name}": _loose_files(path) for path in folders}
    if frames is not None:
        with files.atomic_dir(frames) as out:
            for clip_id, found in progress.track(clips.items(), "import frames", len(clips)):
                _import_frames(out, clip_id, found, root, fps)
    if flow is not None:
        with files.atomic_dir(flow) as out:
            for clip_id, found in progress.track(clips.items(), "import flow", len(clips)):
                _import_flow(out, clip_id, found, root, fps, bound_px)
    return sorted(clips)


def export_folders(
    out: Path | str,
    *,
    frames: Path | str | None = None,
    flow: Path | str | None = None,
    naming: str = "denseflow",
) -> list[str]:
    """Turn packs into loose folders.

    Args:
        out: folder for `<class>/<stem>/*.jpg`; replaced when all went well.
        frames: folder of frames packs, searched for `*.zip`; may be None.
        flow: folder of flow packs; may be None.
        naming: `denseflow` (flow_x_00001.jpg) or `tsn` (x_00001.jpg).

    Returns:
        clip_ids (paths of the packs without `.zip`), sorted.

    Raises:
        InputError: no pack, a broken one, or one with a member that is none of ours.
    """
    if naming not in NAMINGS:
        raise InputError(f"expected a naming of {', '.join(NAMINGS)}, got {naming!r}")
    packs = [found for root in (frames, flow) if root is not None for found in _packs(Path(root))]
    if not packs:
        raise InputError(f"expected packs (*.zip) below {frames} or {flow}, found none")
    with files.atomic_dir(out) as folder:
        for clip_id, path in progress.track(packs, "export"):
            target = folder / clip_id
            target.mkdir(parents=True, exist_ok=True)
            for name, content in _jpegs(path, naming):
                (target / name).write_bytes(content)
    return sorted({clip_id for clip_id, _ in packs})


def _loose_files(folder: Path) -> dict[str, list[Path]]:
    """JPEGs of one clip by kind, in order."""
    numbered: dict[str, dict[int, Path]] = {"img": {}, "flow_x": {}, "flow_y": {}}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        match = _LOOSE.fullmatch(path.name)
        if match is None or not path.is_file():
            raise InputError(f"expected img_, flow_x_/x_ and flow_y_/y_ JPEGs, got {path}")
        kind, number = _KINDS[match[1]], int(match[2])
        if number in numbered[kind]:
            raise InputError(f"expected one file of a number, got {numbered[kind][number]}, {path}")
        numbered[kind][number] = path
    if sorted(numbered["flow_x"]) != sorted(numbered["flow_y"]):
        raise InputError(f"expected as many flow x as flow y files of the same numbers in {folder}")
    return {kind: _in_order(paths, folder) for kind, paths in numbered.items()}


def _in_order(paths: dict[int, Path], folder: Path) -> list[Path]:
    numbers = sorted(paths)
    if numbers and numbers[0] not in (0, 1):
        raise InputError(f"expected numbers from 0 or 1, got {numbers[0]} first in {folder}")
    for expected, number in enumerate(numbers, start=numbers[0] if numbers else 0):
        if number != expected:
            raise InputError(f"expected number {expected}, got {number} in {folder}")
    return [paths[number] for number in numbers]


def _import_frames(
    out: Path, clip_id: str, found: dict[str, list[Path]], root: Path, fps: float
) -> None:
    contents = _read_jpegs(found["img"], "img", root / clip_id)
    meta = _meta(clip_id, contents[0], len(contents), fps)
    members = ((pack.frame_name(i), content) for i, content in enumerate(contents))
    pack.write_pack(out / f"{clip_id}.zip", members, meta)


def _import_flow(
    out: Path,
    clip_id: str,
    found: dict[str, list[Path]],
    root: Path,
    fps: float,
    bound_px: float,
) -> None:
    x = _read_jpegs(found["flow_x"], "flow_x", root / clip_id)
    y = _read_jpegs(found["flow_y"], "flow_y", root / clip_id)
    # denseflow may store as many fields as frames or one fewer; the pack's law is one fewer
    meta = _meta(clip_id, x[0], len(x) + 1, fps)
    meta |= {"num_fields": len(x), "bound_px": bound_px}
    meta |= {"method": "unknown", "preset": "unknown", "backend": "unknown"}
    members = (
        member
        for i, pair in enumerate(zip(x, y, strict=True))
        for member in zip(pack.flow_names(i), pair, strict=True)
    )
    pack.write_pack(out / f"{clip_id}.zip", members, meta)


def _read_jpegs(paths: list[Path], kind: str, folder: Path) -> list[bytes]:
    if not paths:
        raise InputError(f"expected {kind} JPEGs in {folder}, found none")
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, contents, strict=True):
        if not content.startswith(b"\xff\xd8"):
            raise InputError(f"expected a JPEG, got something else in {path}")
    return contents


def _meta(clip_id: str, first: bytes, num_frames: int, fps: float) -> dict[str, Any]:
    image = cv2.imdecode(np.frombuffer(first, np.uint8), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise InputError(f"expected a JPEG that decodes as the first image of {clip_id}")
    return {
        "clip_id": clip_id,
        "sha256": None,  # the video is not here
        "timestamps_sec": [round(index / fps, 6) for index in range(num_frames)],
        "size": [image.shape[1], image.shape[0]],
        "quality": None,
        "num_frames": num_frames,
    }


def _packs(root: Path) -> list[tuple[str, Path]]:
    found = sorted(root.rglob("*.zip"))
    return [(path.relative_to(root).as_posix().removesuffix(".zip"), path) for path in found]


def _jpegs(path: Path, naming: str) -> Iterator[tuple[str, bytes]]:
    with pack.open_pack(path) as archive:
        for name in archive.namelist():
            if name == pack.META:
                continue
            match = _PACKED.fullmatch(name)
            if match is None:
                raise InputError(f"expected only JPEGs of frames or flow, got {name!r} in {path}")
            yield f"{NAMINGS[naming][match[1]]}{match[2]}.jpg", archive.read(name)
