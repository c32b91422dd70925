"""Images and masks of salient objects: found, looked at, split and read; no torch.

Layouts: MSRA10K's `Imgs/<id>.jpg` beside `<id>.png`; ECSSD's and DUT-OMRON's `images/<id>.jpg` with
`ground_truth_mask/<id>.png`. Every pair ends in the status table: ok, quarantined with a reason, or
absent (a mask without its image).

Files of the wild are made alike when read: one channel becomes three, 16 bits become 8,
transparent pixels are laid on white, CMYK becomes RGB, an image is turned as its EXIF says (or is
left as stored where that is how its mask lies). What leaves a doubt is refused with a reason.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from flowsight import files
from flowsight.datasets.grouping import hashed_order
from flowsight.datasets.layout import check_inside, check_name, visible
from flowsight.errors import GateError, InputError
from flowsight.progress import track

if TYPE_CHECKING:
    import pandas as pd

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

LAYOUTS = (("Imgs", "Imgs"), ("images", "ground_truth_mask"))
"""Folders of images and of masks."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MASK_SUFFIX = ".png"
ITEMS = ["item_id", "image", "mask", "upright", "width", "height"]
"""Of `items.csv`: paths below the data set's folder; whether the image is turned as its EXIF says
(1) or read as stored (0); px."""
SPLIT = ["item_id", "subset"]
MAX_PIXELS = 50_000_000
_TAIL = 4096
# share of a mask's pixels that may be neither nearly black nor nearly white
_MAX_GREY = 0.2


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One image with its mask."""

    item_id: str
    image: Path
    mask: Path
    upright: bool
    """Turn the image as its EXIF says; else as stored."""
    subset: str


def write_pairs(
    raw: Path,
    out: Path,
    *,
    split_ids: Sequence[str],
    test_share: float,
    val_share: float,
    seed: int,
    max_quarantined: float,
) -> None:
    """Look at every pair and write `items.csv`, `status.csv` and `splits/<id>.csv`; all or none.

    Args:
        raw: the data set, never changed.
        out: folder to make.
        split_ids: each name is another division.
        test_share: share of the pairs for testing.
        val_share: share of the others for validation.
        seed: decides, with the split's and each pair's name, where a pair goes.
        max_quarantined: share of the pairs that may be refused.

    Raises:
        InputError: no pairs in the folder, or too few to split.
        GateError: too many are refused.
    """
    rows, refused, absent = [], {}, []
    for item_id, image, mask in track(list(find(raw)), "looking at pairs"):
        if image is None:
            absent.append(item_id)
            continue
        try:
            rows.append(_row(raw, item_id, image, mask))
        except InputError as error:
            refused[item_id] = str(error)
    _gate(raw, rows, refused, max_quarantined)
    ids = [str(row["item_id"]) for row in rows]
    shares = {"test": test_share, "val": val_share}
    splits = {s: split(ids, shares, key=f"{seed}/{s}") for s in split_ids}
    _write(out, rows, _status(ids, refused, absent), splits)


def find(raw: Path) -> Iterator[tuple[str, Path | None, Path | None]]:
    """(id, image, mask) of everything that has one of the two, by id.

    Raises:
        InputError: no folder of a known layout, a bad name, or two images of one id.
    """
    layout = next((x for x in LAYOUTS if all((raw / name).is_dir() for name in x)), None)
    if layout is None:
        command = "dvc repro sample" if raw.name == "sample_images" else (
            f"flowsight import {raw.name} SOURCE"
        )  # fmt: skip
        raise InputError(
            f"expected Imgs/ or images/ with ground_truth_mask/ in {raw}, found neither; run "
            f"`{command}`"
        )
    together = layout[0] == layout[1]
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for path in visible(raw / layout[0]):
        check_name(path.name, path.parent)
        check_inside(path, raw)
        suffix = path.suffix.lower()
        if together and suffix == MASK_SUFFIX:
            masks[path.stem] = path
        elif suffix in IMAGE_SUFFIXES:
            other = images.setdefault(path.stem, path)
            if other != path:
                raise InputError(f"expected one image named {path.stem}, got {other} and {path}")
    if not together:
        masks = {check_inside(p, raw).stem: p for p in visible(raw / layout[1])
                 if p.suffix.lower() == MASK_SUFFIX}  # fmt: skip
    for item_id in sorted(images.keys() | masks.keys()):
        yield item_id, images.get(item_id), masks.get(item_id)


def _row(raw: Path, item_id: str, image: Path, mask: Path | None) -> dict[str, str | int]:
    if mask is None:
        raise InputError(f"no mask named {item_id}{MASK_SUFFIX}")
    shape = read_mask(mask).shape
    upright = _lies_upright(image, shape)
    # read in full, so that what training would stumble over is found here
    if read_image(image, upright=upright).shape[:2] != shape:
        raise AssertionError(image)
    return {
        "item_id": item_id,
        "image": image.relative_to(raw).as_posix(),
        "mask": mask.relative_to(raw).as_posix(),
        "upright": int(upright),
        "width": shape[1],
        "height": shape[0],
    }


def _lies_upright(path: Path, mask_shape: tuple[int, ...]) -> bool:
    """Whether the mask was drawn on the image as its EXIF turns it, by its size.

    Raises:
        InputError: another size either way, or the size cannot tell.
    """
    data = _bytes(path)
    turned, stored = _decode(data, path, turn=True), _decode(data, path, turn=False)
    fits = [x.shape[:2] == mask_shape for x in (turned, stored)]
    if not any(fits):
        height, width = turned.shape[:2]
        raise InputError(
            f"expected a mask of {width} x {height} px as its image, got {mask_shape[1]} x "
            f"{mask_shape[0]}"
        )
    if all(fits) and not np.array_equal(turned, stored):
        raise InputError(
            "its EXIF turns the image and the mask fits either way; save it turned, without EXIF"
        )
    return fits[0]


def read_image(path: Path, *, upright: bool = True) -> Image:
    """An image as (H, W, 3) uint8 RGB.

    Args:
        path: a file of `IMAGE_SUFFIXES`.
        upright: turn it as its EXIF says.

    Raises:
        InputError: no such file, broken, cut off, too large, or neither 8 nor 16 bits.
    """
    data = _bytes(path)
    stored = _as_8_bits(_decode_unchanged(data, path), path)
    if stored.ndim == 3 and stored.shape[2] == 4:
        return _on_white(stored, _turns(data, path) and upright, path)
    if _turns(data, path) and upright:
        return cv2.cvtColor(_decode(data, path, turn=True), cv2.COLOR_BGR2RGB).astype(np.uint8)
    code = cv2.COLOR_GRAY2RGB if stored.ndim == 2 else cv2.COLOR_BGR2RGB
    return cv2.cvtColor(stored, code).astype(np.uint8)


def read_mask(path: Path) -> Mask:
    """A mask as (H, W) bool: at least half of the full value (or, of 0 and 1, 1).

    Raises:
        InputError: as `read_image`; colours, transparency, too many greys, or nothing salient.
    """
    stored = _decode_unchanged(_bytes(path), path)
    levels = _as_8_bits(stored, path) if int(stored.max()) > 1 else stored * np.uint8(255)
    if levels.ndim == 3 and levels.shape[2] == 4:
        if int(levels[..., 3].min()) < 255:
            raise InputError("its mask has transparent pixels; save it without transparency")
        levels = levels[..., :3]
    if levels.ndim == 3:
        if (levels != levels[..., :1]).any():
            raise InputError("its mask has colours; expected black and white")
        levels = levels[..., 0]
    grey = float(np.mean((levels > 63) & (levels < 192)))
    if grey > _MAX_GREY:
        raise InputError(f"its mask is grey in {grey:.0%} of the pixels; expected black and white")
    mask: Mask = levels >= 128
    if not mask.any():
        raise InputError("its mask has no salient pixel")
    return mask


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise InputError(f"expected an image in {path}, found no such file")
    data = path.read_bytes()
    ends = ((b"\xff\xd8", b"\xff\xd9"), (b"\x89PNG", b"IEND"))
    for start, end in ends:
        if data.startswith(start) and end not in data[-_TAIL:]:
            raise InputError(f"{path.name} is cut off")
    return data


def _decode_unchanged(data: bytes, path: Path) -> np.ndarray:
    return _checked(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), path)


def _decode(data: bytes, path: Path, *, turn: bool) -> np.ndarray:
    """(H, W, 3) uint8 BGR; for comparing and turning (OpenCV's RGB flag mixes up 16 bits)."""
    flags = cv2.IMREAD_COLOR if turn else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return _checked(cv2.imdecode(np.frombuffer(data, np.uint8), flags), path)


def _checked(image: np.ndarray | None, path: Path) -> np.ndarray:
    if image is None:
        raise InputError(f"{path.name} is broken or no image")
    if image.shape[0] * image.shape[1] > MAX_PIXELS:
        raise InputError(f"{path.name} has more than {MAX_PIXELS:,} pixels")
    return image


def _turns(data: bytes, path: Path) -> bool:
    if b"Exif" not in data and b"eXIf" not in data and not data.startswith((b"II*", b"MM\0*")):
        return False
    return not np.array_equal(_decode(data, path, turn=True), _decode(data, path, turn=False))


def _as_8_bits(image: np.ndarray, path: Path) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 is 255
    raise InputError(f"{path.name} holds {image.dtype}; expected 8 or 16 bits a channel")


def _on_white(image: np.ndarray, turns: bool, path: Path) -> Image:
    if turns:
        raise InputError(f"{path.name} is transparent and turned by its EXIF; save it without")
    cover = image[..., 3:].astype(np.float32) / 255
    mixed = image[..., 2::-1] * cover + 255 * (1 - cover)
    return np.rint(mixed).astype(np.uint8)


def _gate(
    raw: Path, rows: Sequence[object], refused: dict[str, str], max_quarantined: float
) -> None:
    total = len(rows) + len(refused)
    if total == 0:
        raise InputError(f"expected images with masks in {raw}, found none")
    if refused:
        first, reason = next(iter(refused.items()))
        text = f"{len(refused)} of {total} pairs of {raw} are refused ({first}: {reason})"
        if len(refused) > max_quarantined * total:
            raise GateError(
                f"expected at most {max_quarantined:g} of the pairs to be refused, {text}; mend "
                "them or raise images.max_quarantined"
            )
        print(f"warning: {text}; see status.csv", file=sys.stderr)


def split(ids: Sequence[str], shares: dict[str, float], *, key: str) -> dict[str, str]:
    """Item -> subset; what a pair gets depends on the key and its own name.

    Args:
        ids: of the pairs.
        shares: `test` of all pairs, then `val` of the others.
        key: seed and split.

    Raises:
        InputError: a side that must not be empty is.
    """
    order = hashed_order(ids, key)
    num_test = round(shares["test"] * len(order))
    num_val = round(shares["val"] * (len(order) - num_test))
    subsets = ["test"] * num_test + ["val"] * num_val
    subsets += ["train"] * (len(order) - len(subsets))
    if "train" not in subsets or "test" not in subsets:
        raise InputError(
            f"expected pairs for training and for testing, got {len(order)} pairs and a test share "
            f"of {shares['test']:g}; change images.test_share"
        )
    return dict(zip(order, subsets, strict=True))


def _status(ids: list[str], refused: dict[str, str], absent: list[str]) -> list[tuple[str, ...]]:
    rows = [(item, "ok", "") for item in ids]
    rows += [(item, "quarantined", reason) for item, reason in refused.items()]
    rows += [(item, "absent", "a mask without its image") for item in absent]
    return sorted(rows)


def _write(
    out: Path,
    rows: list[dict[str, str | int]],
    status: list[tuple[str, ...]],
    splits: dict[str, dict[str, str]],
) -> None:
    import pandas as pd

    with files.atomic_dir(out) as folder:
        files.write_csv(pd.DataFrame(rows, columns=ITEMS), folder / "items.csv")
        table = pd.DataFrame(status, columns=["item_id", "status", "reason"])
        files.write_csv(table, folder / "status.csv")
        (folder / "splits").mkdir()
        for name, subsets in splits.items():
            table = pd.DataFrame(sorted(subsets.items()), columns=SPLIT)
            files.write_csv(table, folder / "splits" / f"{name}.csv")


def load_pairs(raw: Path, pairs: Path, split_id: str) -> list[Pair]:
    """The pairs of a split, by id.

    Args:
        raw: the data set's folder.
        pairs: folder that `write_pairs` made.
        split_id: one of its splits.

    Raises:
        InputError: a table is missing or another one.
    """
    items = _read(pairs / "items.csv", ITEMS).set_index("item_id")
    table = _read(pairs / "splits" / f"{split_id}.csv", SPLIT)
    found = []
    for item_id, subset in zip(table["item_id"], table["subset"], strict=True):
        item = items.loc[item_id]
        found.append(
            Pair(
                item_id=item_id,
                image=raw / item["image"],
                mask=raw / item["mask"],
                upright=item["upright"] == "1",
                subset=subset,
            )
        )
    return found


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
    from flowsight.datasets import tables

    return tables.read(path, columns).astype(str)
