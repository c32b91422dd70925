"""Pairs of images and masks: found, looked at, made alike or refused with a reason."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from flowsight.datasets.images import pairs as image_pairs
from flowsight.errors import GateError, InputError

H, W = 24, 36


def picture() -> np.ndarray:
    """(H, W, 3) RGB without symmetry: red above left, green below right, some blue."""
    image = np.full((H, W, 3), 60, np.uint8)
    image[: H // 2, : W // 3, 0] = 230
    image[H // 2 :, W // 2 :, 1] = 200
    image[:, -4:, 2] = 180
    return image


def disc() -> np.ndarray:
    rows, columns = np.mgrid[:H, :W]
    mask: np.ndarray = (rows - 9) ** 2 + (columns - 12) ** 2 < 36
    return mask


def write(path: Path, array: np.ndarray, *options: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if array.ndim == 3:
        array = array[..., [2, 1, 0, *range(3, array.shape[2])]]
    assert cv2.imwrite(str(path), array, list(options))
    return path


def white(mask: np.ndarray) -> np.ndarray:
    return np.where(mask, 255, 0).astype(np.uint8)


def with_exif(path: Path, orientation: int) -> Path:
    """Put an EXIF block with this orientation behind the start of a JPEG."""
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    block = b"Exif\0\0" + tiff
    data = path.read_bytes()
    marker = b"\xff\xe1" + struct.pack(">H", len(block) + 2)
    path.write_bytes(data[:2] + marker + block + data[2:])
    return path


def data_set(root: Path, count: int = 4) -> Path:
    for i in range(count):
        write(root / f"images/{i:04d}.png", picture())
        write(root / f"ground_truth_mask/{i:04d}.png", white(disc()))
    return root


def look(raw: Path, out: Path, **options: object) -> pd.DataFrame:
    values: dict[str, object] = {
        "split_ids": ("1",),
        "test_share": 0.25,
        "val_share": 0.0,
        "seed": 1,
        "max_quarantined": 0.9,
    }
    image_pairs.write_pairs(raw, out, **(values | options))  # type: ignore[arg-type]
    return pd.read_csv(out / "status.csv", dtype=str, keep_default_na=False).set_index("item_id")


# what is made alike


def test_grey_becomes_three_channels(tmp_path: Path) -> None:
    grey = cv2.cvtColor(picture(), cv2.COLOR_RGB2GRAY)
    image = image_pairs.read_image(write(tmp_path / "a.png", grey))
    assert image.shape == (H, W, 3) and (image == grey[..., None]).all()


def test_16_bits_become_8_in_the_right_order(tmp_path: Path) -> None:
    wide = picture().astype(np.uint16) * 257
    assert np.array_equal(image_pairs.read_image(write(tmp_path / "a.png", wide)), picture())
    grey = np.full((H, W), 1000, np.uint16)
    assert (image_pairs.read_image(write(tmp_path / "b.png", grey)) == 4).all()


def test_transparent_pixels_lie_on_white(tmp_path: Path) -> None:
    cover = np.full((H, W, 1), 255, np.uint8)
    cover[:, :5], cover[:, 5:10] = 0, 51
    image = image_pairs.read_image(write(tmp_path / "a.png", np.dstack([picture(), cover])))
    assert np.array_equal(image[:, 10:], picture()[:, 10:])
    assert (image[:, :5] == 255).all()
    assert np.array_equal(image[0, 5], np.rint(0.2 * picture()[0, 5] + 0.8 * 255))


def test_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")  # comes with matplotlib
    pillow.fromarray(picture()).convert("CMYK").save(tmp_path / "a.jpg", quality=98)
    image = image_pairs.read_image(tmp_path / "a.jpg").astype(int)
    # colours run at edges; the middle of each patch must be right
    for row, column in ((5, 5), (18, 24), (5, 24)):
        assert np.abs(image[row, column] - picture()[row, column]).max() < 12


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda x: x),
        (2, lambda x: x[:, ::-1]),
        (3, lambda x: x[::-1, ::-1]),
        (6, lambda x: np.rot90(x, -1)),
        (8, lambda x: np.rot90(x)),
    ],
)
def test_images_are_turned_as_exif_says(tmp_path: Path, orientation: int, turned: object) -> None:
    assert callable(turned)
    path = write(tmp_path / "a.jpg", picture(), cv2.IMWRITE_JPEG_QUALITY, 100)
    plain = image_pairs.read_image(path)
    with_exif(path, orientation)
    assert np.array_equal(image_pairs.read_image(path), turned(plain))
    assert np.array_equal(image_pairs.read_image(path, upright=False), plain)


def test_the_mask_says_whether_an_image_was_turned_before_it_was_drawn(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for name, mask in (("before", disc()), ("after", np.rot90(disc(), -1))):
        path = write(raw / f"Imgs/{name}.jpg", picture())
        with_exif(path, 6)
        write(raw / f"Imgs/{name}.png", white(mask))
    assert set(look(raw, tmp_path / "out", test_share=0.5)["status"]) == {"ok"}
    pairs = {p.item_id: p for p in image_pairs.load_pairs(raw, tmp_path / "out", "1")}
    assert (pairs["before"].upright, pairs["after"].upright) == (False, True)
    for pair in pairs.values():
        shape = image_pairs.read_image(pair.image, upright=pair.upright).shape[:2]
        assert shape == image_pairs.read_mask(pair.mask).shape


def test_masks_of_any_depth_are_the_same(tmp_path: Path) -> None:
    mask = disc()
    wide = white(mask).astype(np.uint16) * 257
    for name, stored in {
        "8": white(mask),
        "16": wide,
        "0 and 1": mask.astype(np.uint8),
        "three": np.dstack([white(mask)] * 3),
        "opaque": np.dstack([white(mask)] * 3 + [np.full((H, W), 255, np.uint8)]),
    }.items():
        found = image_pairs.read_mask(write(tmp_path / f"{name}.png", stored))
        assert np.array_equal(found, mask), name
    half = np.array([[127, 128], [0, 255]], np.uint8).repeat(10, axis=0).repeat(10, axis=1)
    half[:, :8], half[4:] = 255, 255
    found = image_pairs.read_mask(write(tmp_path / "half.png", half))
    assert not found[0, 9] and found[0, 19]


# what is refused


def test_each_fault_has_its_reason(tmp_path: Path) -> None:
    raw = data_set(tmp_path / "raw", 6)
    images, masks = raw / "images", raw / "ground_truth_mask"
    good = (images / "0000.png").read_bytes()
    for name in ("cut", "text", "size", "turned", "colour", "clear", "grey", "empty", "alone"):
        write(images / f"{name}.png", picture())
        if name != "alone":
            write(masks / f"{name}.png", white(disc()))
    (images / "cut.png").write_bytes(good[: len(good) // 2])
    (images / "text.png").write_bytes(b"not an image at all")
    write(masks / "size.png", white(disc())[:-1])
    (images / "turned.png").unlink()
    with_exif(write(images / "turned.jpg", picture()), 3)
    write(masks / "colour.png", np.dstack([white(disc()), white(~disc()), white(disc())]))
    write(masks / "clear.png", np.dstack([white(disc())] * 4))
    write(masks / "grey.png", np.full((H, W), 100, np.uint8))
    write(masks / "empty.png", np.zeros((H, W), np.uint8))
    write(masks / "lost.png", white(disc()))
    status = look(raw, tmp_path / "out")
    assert status.loc["lost", "status"] == "absent"
    reasons = {
        i: r for i, r in status["reason"].items() if status.loc[i, "status"] == "quarantined"
    }
    assert reasons == {
        "cut": "cut.png is cut off",
        "text": "text.png is broken or no image",
        "size": "expected a mask of 36 x 24 px as its image, got 36 x 23",
        "turned": "its EXIF turns the image and the mask fits either way; save it turned, "
        "without EXIF",
        "colour": "its mask has colours; expected black and white",
        "clear": "its mask has transparent pixels; save it without transparency",
        "grey": "its mask is grey in 100% of the pixels; expected black and white",
        "empty": "its mask has no salient pixel",
        "alone": "no mask named alone.png",
    }
    assert len(pd.read_csv(tmp_path / "out/splits/1.csv")) == 6


def test_too_many_refused_stop_the_run(tmp_path: Path) -> None:
    raw = data_set(tmp_path / "raw")
    write(raw / "ground_truth_mask/0001.png", np.zeros((H, W), np.uint8))
    with pytest.raises(GateError, match=r"1 of 4 pairs .* \(0001: its mask has no salient pixel\)"):
        look(raw, tmp_path / "out", max_quarantined=0.2)
    assert not (tmp_path / "out").exists()


def test_folders_that_hold_no_pairs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run `flowsight import ecssd SOURCE`"):
        look(tmp_path / "ecssd", tmp_path / "out")
    (tmp_path / "msra10k/Imgs").mkdir(parents=True)
    with pytest.raises(InputError, match=r"images with masks in .*, found none"):
        look(tmp_path / "msra10k", tmp_path / "out")
    raw = data_set(tmp_path / "two")
    write(raw / "images/0001.jpg", picture())
    with pytest.raises(InputError, match="one image named 0001"):
        look(raw, tmp_path / "out")


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    raw = data_set(tmp_path / "raw")
    outside = write(tmp_path / "outside.png", picture())
    (raw / "images/0009.png").symlink_to(outside)
    with pytest.raises(InputError, match="leads out of it"):
        look(raw, tmp_path / "out")


# splits


def test_splits_have_their_sizes_and_stay_put(tmp_path: Path) -> None:
    ids = [f"{i:04d}" for i in range(200)]
    shares = {"test": 0.25, "val": 0.1}
    one = image_pairs.split(ids, shares, key="1/1")
    counts = {s: list(one.values()).count(s) for s in ("train", "val", "test")}
    assert counts == {"train": 135, "val": 15, "test": 50}
    assert one != image_pairs.split(ids, shares, key="1/2")
    assert one == image_pairs.split(ids[::-1], shares, key="1/1")
    more = image_pairs.split([*ids, "0200"], shares, key="1/1")
    assert sum(more[i] != one[i] for i in ids) <= 2  # one may move from each side to the next
    with pytest.raises(InputError, match="for training and for testing"):
        image_pairs.split(ids[:1], shares, key="1/1")


def test_the_same_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    raw = data_set(tmp_path / "raw")
    for out in ("one", "two"):
        look(raw, tmp_path / out, split_ids=("1", "2"))
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.csv"))
    assert [str(f) for f in files] == ["items.csv", "splits/1.csv", "splits/2.csv", "status.csv"]
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_real_pairs(shared_data: Path, tmp_path: Path) -> None:
    """ECSSD's first twelve as they come: all of them sound."""
    raw = tmp_path / "ecssd"
    for folder in ("images", "ground_truth_mask"):
        (raw / folder).mkdir(parents=True)
        for path in sorted((shared_data / "ecssd" / folder).iterdir())[:12]:
            (raw / folder / path.name).write_bytes(path.read_bytes())
    status = look(raw, tmp_path / "out")
    assert len(status) == 12 and set(status["status"]) == {"ok"}
    items = pd.read_csv(tmp_path / "out/items.csv", dtype=str)
    assert items.iloc[0].tolist() == [
        "0001", "images/0001.jpg", "ground_truth_mask/0001.png", "1", "267", "400",
    ]  # fmt: skip
