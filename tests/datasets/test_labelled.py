"""Images with a class: found, refused with a reason, told where they repeat, split by groups."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from flowsight.datasets.images import labelled
from flowsight.errors import GateError, InputError


def put(path: Path, seed: int, shape: tuple[int, ...] = (48, 48)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    assert cv2.imwrite(str(path), image)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two classes, 6 training and 2 test pictures each."""
    folder = tmp_path / "raw"
    for k, name in enumerate(("sad", "angry")):
        for i in range(6):
            put(folder / "train" / name / f"t{i}.png", 100 * k + i)
        for i in range(2):
            put(folder / "test" / name / f"t{i}.png", 100 * k + 50 + i)
    return folder


def write(raw: Path, out: Path, **changes: object) -> None:
    options = {"split_ids": ["1", "2"], "val_share": 0.34, "seed": 1, "max_quarantined": 0.2}
    labelled.write_labelled(raw, out, **(options | changes))  # type: ignore[arg-type]


def table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def test_tables_of_a_small_set(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "items"
    write(raw, out)
    items = table(out / "items.csv")
    assert list(items) == labelled.ITEMS and len(items) == 16
    assert items["item_id"].is_monotonic_increasing
    assert table(out / "classes.csv")["label"].tolist() == ["angry", "sad"]
    first = items.iloc[0]
    assert (first["item_id"], first["image"]) == ("test/angry/t0", "test/angry/t0.png")
    assert first["group"] == first["sha256"][:16]
    split = table(out / "splits" / "1.csv")
    assert split["subset"].value_counts().to_dict() == {"train": 8, "val": 4, "test": 4}
    other = table(out / "splits" / "2.csv")
    assert not split.equals(other)
    test = set(split[split["subset"] == "test"]["item_id"])
    assert test == {i for i in split["item_id"] if i.startswith("test/")}
    found, classes = labelled.load_labelled(raw, out, "1")
    assert classes == ["angry", "sad"]
    assert {(i.item_id.split("/")[1], i.label) for i in found} == {("angry", 0), ("sad", 1)}
    assert all(i.image.is_file() for i in found)


def test_the_same_bytes_twice(raw: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(raw, tmp_path / name)
    for path in sorted((tmp_path / "a").rglob("*.csv")):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_repeats_across_sides_are_told(raw: Path, tmp_path: Path) -> None:
    shutil.copyfile(raw / "train/sad/t3.png", raw / "test/angry/t0.png")
    write(raw, tmp_path / "items")
    status = table(tmp_path / "items" / "status.csv").set_index("item_id")
    twin = status.loc["test/angry/t0"]
    assert (twin["status"], twin["duplicate_of"]) == ("ok", "train/sad/t3")
    assert twin["reason"] == "same bytes as train/sad/t3"
    assert (status.drop("test/angry/t0")["duplicate_of"] == "").all()
    found, _ = labelled.load_labelled(raw, tmp_path / "items", "1")
    assert [i.item_id for i in found if i.duplicate_of] == ["test/angry/t0"]


def test_repeats_within_training_stay_together(raw: Path, tmp_path: Path) -> None:
    for i in range(6):
        shutil.copyfile(raw / f"train/sad/t{i}.png", raw / f"train/sad/u{i}.png")
    write(raw, tmp_path / "items")
    split = table(tmp_path / "items/splits/1.csv").set_index("item_id")["subset"]
    for i in range(6):
        assert split[f"train/sad/t{i}"] == split[f"train/sad/u{i}"]


def test_groups_of_the_folders_table(raw: Path, tmp_path: Path) -> None:
    names = sorted(p.relative_to(raw).as_posix() for p in raw.rglob("*.png"))
    # t0 and t1 of both classes are one person's
    groups = {n: f"{n.split('/')[0]}{int(Path(n).stem[1]) // 2}" for n in names}
    lines = ["image,group", *(f"{name},{group}" for name, group in groups.items())]
    (raw / "groups.csv").write_text("\n".join(lines) + "\n")
    write(raw, tmp_path / "items")
    split = table(tmp_path / "items/splits/1.csv").merge(
        table(tmp_path / "items/items.csv")[["item_id", "group"]]
    )
    assert (split.groupby("group")["subset"].nunique() == 1).all()
    assert split[split["subset"] == "val"]["group"].nunique() == 1
    (raw / "groups.csv").write_text("\n".join(lines).replace("test0", "train0") + "\n")
    with pytest.raises(InputError, match="two sides, got train0"):
        write(raw, tmp_path / "other")


def test_what_is_broken_is_refused_one_by_one(raw: Path, tmp_path: Path) -> None:
    (raw / "train/sad/t0.png").write_bytes(b"no picture")
    whole = (raw / "train/sad/t1.png").read_bytes()
    (raw / "train/sad/t1.png").write_bytes(whole[: len(whole) // 2])
    put(raw / "test/sad/t0.png", 1, (48, 40))
    with pytest.raises(GateError, match=r"expected at most 0\.1 of the pictures.*3 of 16"):
        write(raw, tmp_path / "items", side_px=48, max_quarantined=0.1)
    assert not (tmp_path / "items").exists()
    write(raw, tmp_path / "items", side_px=48)
    status = table(tmp_path / "items/status.csv")
    refused = status[status["status"] == "quarantined"].set_index("item_id")["reason"]
    assert refused.to_dict() == {
        "test/sad/t0": "expected 48 x 48 px, got 40 x 48",
        "train/sad/t0": "t0.png is broken or no image",
        "train/sad/t1": "t1.png is cut off",
    }
    assert set(refused.index).isdisjoint(table(tmp_path / "items/items.csv")["item_id"])


def test_official_validation_is_taken(raw: Path, tmp_path: Path) -> None:
    for name in ("sad", "angry"):
        (raw / f"test/{name}/t0.png").rename(raw / f"test/{name}/PublicTest_1.png")
        put(raw / f"test/{name}/PrivateTest_2.png", 77)
    write(raw, tmp_path / "items")
    split = table(tmp_path / "items/splits/1.csv").set_index("item_id")["subset"]
    assert split["test/sad/PublicTest_1"] == "val" and split["test/sad/PrivateTest_2"] == "test"
    assert (split == "train").sum() == 12


def test_classes_in_the_files_order_or_by_name(raw: Path, tmp_path: Path) -> None:
    for name in ("neutral", "contempt"):
        put(raw / f"train/{name}/a.png", 5)
        put(raw / f"train/{name}/b.png", 6)
    write(raw, tmp_path / "a")
    expected = ["angry", "sad", "neutral", "contempt"]
    assert table(tmp_path / "a/classes.csv")["label"].tolist() == expected
    put(raw / "train/bored/a.png", 7)
    write(raw, tmp_path / "b")
    assert table(tmp_path / "b/classes.csv")["label"].tolist() == [
        "angry", "bored", "contempt", "neutral", "sad",
    ]  # fmt: skip
    put(raw / "test/proud/a.png", 7)
    with pytest.raises(InputError, match="classes that train, got proud"):
        write(raw, tmp_path / "c")


def test_a_missing_side_is_named(tmp_path: Path) -> None:
    put(tmp_path / "fer/train/sad/a.png", 1)
    with pytest.raises(InputError, match=r"expected test/<class>/<picture> in .*import fer SOURCE"):
        write(tmp_path / "fer", tmp_path / "items")


def test_real_fer2013(shared_data: Path, tmp_path: Path) -> None:
    raw = shared_data / "fer2013"
    if not raw.is_dir():
        pytest.skip(f"no FER2013 in {raw}")
    write(raw, tmp_path / "items", side_px=48, max_quarantined=0.0, val_share=0.1)
    assert table(tmp_path / "items/classes.csv")["label"].tolist() == list(labelled.ORDER[:7])
    counts = table(tmp_path / "items/splits/1.csv")["subset"].value_counts()
    assert counts["test"] == 350 and counts["train"] + counts["val"] == 840
    # 6 of the 350 test pictures have the bytes of a training picture (`sha256sum`)
    assert (table(tmp_path / "items/status.csv")["duplicate_of"] != "").sum() == 6
