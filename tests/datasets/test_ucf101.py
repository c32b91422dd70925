"""UCF-101's layout and lists, and the same layout with shared actors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from flowsight.datasets.clips.adapters import actors, ucf101
from flowsight.errors import InputError

Ucf = Callable[..., Path]
NO_CLIPS = pd.DataFrame()


def lists_only(folder: Path, classes: str, train: str, test: str) -> Path:
    lists = folder / ucf101.LISTS
    lists.mkdir(parents=True)
    (folder / "videos").mkdir()
    (lists / "classInd.txt").write_bytes(classes.encode())
    (lists / "trainlist01.txt").write_bytes(train.encode())
    (lists / "testlist01.txt").write_bytes(test.encode())
    return folder


def test_clips_groups_and_classes(ucf: Ucf) -> None:
    raw = ucf(groups=2)
    assert ucf101.classes(raw) == ["Jump", "Run", "Wave"]
    found = ucf101.find_clips(raw)
    assert found.values.tolist()[:2] == [
        ["Jump/v_Jump_g01_c01", "Jump", "Jump/g01", "videos/Jump/v_Jump_g01_c01.avi"],
        ["Jump/v_Jump_g02_c01", "Jump", "Jump/g02", "videos/Jump/v_Jump_g02_c01.avi"],
    ]
    assert actors.find_clips(raw).group.tolist() == ["g01", "g02"] * 3


def test_class_order_is_the_list_s_and_numbers_are_optional(tmp_path: Path) -> None:
    numbered = lists_only(tmp_path / "a", "2 Apple\r\n1 Pear \r\n\r\n", "", "")
    plain = lists_only(tmp_path / "b", "Pear\nApple\n", "", "")
    assert ucf101.classes(numbered) == ucf101.classes(plain) == ["Pear", "Apple"]


@pytest.mark.parametrize("text", ["", "1 A\n2 A\n", "1 A\n1 B\n", "\0\0"])
def test_broken_class_list(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"classInd\.txt"):
        ucf101.classes(lists_only(tmp_path / "a", text, "", ""))


def test_line_ends_trailing_blanks_and_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    train, test = "A/v_A_g02_c01.avi 1\nB/v_B_g02_c01.avi 2\n", "A/v_A_g01_c01.avi\n"
    plain = lists_only(tmp_path / "lf", "1 A\n2 B\n", train, test)
    odd = lists_only(
        tmp_path / "crlf",
        "1 A\r\n2 B\r\n",
        "\ufeff" + train.replace(" 1\n", "  1 \r\n").replace(" 2\n", "\t2\r\n\r\n"),
        test.replace("\n", "  \r\n"),
    )
    expected = [
        ["A/v_A_g01_c01", "1", "test"],
        ["A/v_A_g02_c01", "1", "train"],
        ["B/v_B_g02_c01", "1", "train"],
    ]
    for raw in (plain, odd):
        assert ucf101.official_splits(raw, NO_CLIPS).values.tolist() == expected


@pytest.mark.parametrize(
    ("train", "says"),
    [
        ("C/v_C_g02_c01.avi 1\n", "unknown class 'C' in line 1"),
        ("A/v_A_g02_c01.avi 2\n", "expected class number 1"),
        ("v_A_g02_c01.avi 1\n", "line 1"),
        ("A/v_A_g02_c01.avi one\n", "line 1"),
        ("../A/v_A_g02_c01.avi 1\n", "line 1"),
        ("../v_A_g02_c01.avi 1\n", r"unknown class '\.\.'"),
        ("A/v_A_g01_c01.avi 1\n", "both train and test"),
        ("A/v_A_g02_c01\0.avi 1\n", "binary"),
    ],
)
def test_faults_in_a_list_name_the_place(tmp_path: Path, train: str, says: str) -> None:
    raw = lists_only(tmp_path / "a", "1 A\n2 B\n", train, "A/v_A_g01_c01.avi\n")
    with pytest.raises(InputError, match=says) as caught:
        ucf101.official_splits(raw, NO_CLIPS)
    assert "\n" not in str(caught.value)


def test_a_list_that_is_not_text(tmp_path: Path) -> None:
    raw = lists_only(tmp_path / "a", "1 A\n", "", "")
    (raw / ucf101.LISTS / "trainlist01.txt").write_bytes(b"\xff\xfe\x00garbage")
    with pytest.raises(InputError, match="text list"):
        ucf101.official_splits(raw, NO_CLIPS)


def test_a_list_without_its_partner(ucf: Ucf) -> None:
    raw = ucf(groups=2)
    (raw / ucf101.LISTS / "testlist01.txt").unlink()
    with pytest.raises(InputError, match=r"testlist01\.txt"):
        ucf101.official_splits(raw, NO_CLIPS)


def test_unknown_folder_and_odd_names(ucf: Ucf, write_video: Callable[..., Path]) -> None:
    raw = ucf(groups=2)
    write_video(raw / "videos/Jum/v_Jum_g01_c01.avi")
    with pytest.raises(InputError, match="unknown class 'Jum'"):
        ucf101.find_clips(raw)
    (raw / "videos/Jum").rename(raw / "videos/.hidden")
    write_video(raw / "videos/Jump/holiday.avi")
    with pytest.raises(InputError, match="v_<Class>_gXX_cYY"):
        ucf101.find_clips(raw)


@pytest.mark.parametrize(
    ("split_id", "train", "test"), [("1", 9537, 3783), ("2", 9586, 3734), ("3", 9624, 3696)]
)
def test_official_lists(shared_data: Path, split_id: str, train: int, test: int) -> None:
    """Counts: `wc -l` on the official lists."""
    official = ucf101.official_splits(shared_data / "ucf101", NO_CLIPS)
    rows = official[official.split_id == split_id]
    assert rows.subset.value_counts().to_dict() == {"train": train, "test": test}
    assert len(set(official.clip_id)) == 13320
    group = rows.clip_id.map(lambda clip: clip.rpartition("_c")[0])
    assert not set(group[rows.subset == "train"]) & set(group[rows.subset == "test"])


def test_real_clips(shared_data: Path) -> None:
    found = ucf101.find_clips(shared_data / "ucf101")
    expected = pd.read_csv(shared_data / "clips.csv").query("dataset == 'ucf101'")
    assert len(found) == 44
    assert {f"ucf101/{path}" for path in found.path} == set(expected.path)
    assert len(ucf101.classes(shared_data / "ucf101")) == 101
    official = ucf101.official_splits(shared_data / "ucf101", found)
    ours = official[official.split_id == "1"].merge(found).set_index("path").subset
    theirs = expected.set_index(expected.path.str.removeprefix("ucf101/")).split1
    assert ours.to_dict() == theirs.to_dict()
