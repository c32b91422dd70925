"""HMDB-51's names and its 153 lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from flowsight.datasets.clips.adapters import hmdb51
from flowsight.errors import InputError

NO_CLIPS = pd.DataFrame()


def lists(raw: Path, content: dict[str, str]) -> Path:
    folder = raw / hmdb51.LISTS
    folder.mkdir(parents=True)
    for name, text in content.items():
        (folder / name).write_bytes(text.encode())
    return raw


def test_uses_trailing_blanks_and_line_ends(tmp_path: Path) -> None:
    name = "(HQ)_A_-_b+!!!_wave_f_cm_np1_le_med_2.avi"
    raw = lists(tmp_path, {"wave_test_split1.txt": f"{name} 1 \r\na b.avi 2\nc.avi 0 \n\n"})
    assert hmdb51.classes(raw) == ["wave"]
    assert hmdb51.official_splits(raw, NO_CLIPS).values.tolist() == [
        [f"wave/{name[:-4]}", "1", "train"],
        ["wave/a b", "1", "test"],
    ]


@pytest.mark.parametrize(
    ("name", "label", "expected"),
    [
        ("April_09_brush_hair_u_nm_np1_ba_goo_0", "brush_hair", "April_09"),
        ("(HQ)_Climb_-_x_climb_f_cm_np1_le_med_2", "climb", "(HQ)_Climb_-_x"),
        ("run_and_run_run_f_cm_np12_fr_bad_11", "run", "run_and_run"),
        ("holiday", "run", "holiday"),
    ],
)
def test_source_part_of_a_name(name: str, label: str, expected: str) -> None:
    assert hmdb51.source(name, label) == expected


@pytest.mark.parametrize("line", ["a.avi 3", "a.avi", "1", "../a.avi 1", "d/a.avi 1"])
def test_faults_in_a_list(tmp_path: Path, line: str) -> None:
    raw = lists(tmp_path, {"wave_test_split1.txt": f"ok.avi 1\n{line}\n"})
    with pytest.raises(InputError, match=r"wave_test_split1\.txt"):
        hmdb51.official_splits(raw, NO_CLIPS)


def test_missing_lists(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no such folder"):
        hmdb51.classes(tmp_path)
    (tmp_path / hmdb51.LISTS).mkdir()
    with pytest.raises(InputError, match="found no such list"):
        hmdb51.classes(tmp_path)
    content = {f"{name}.txt": "" for name in ("a_test_split1", "a_test_split2", "b_test_split1")}
    raw = lists(tmp_path / "x", content)
    with pytest.raises(InputError, match=r"b_test_split2\.txt"):
        hmdb51.official_splits(raw, NO_CLIPS)


def test_folder_that_no_list_knows(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    raw = lists(tmp_path, {"wave_test_split1.txt": "a.avi 1 \n"})
    write_video(raw / "videos/waves/a.avi")
    with pytest.raises(InputError, match="unknown class 'waves'"):
        hmdb51.find_clips(raw)


def test_all_official_lists(shared_data: Path) -> None:
    """70 training and 30 test clips of each class in each split, as the paper says."""
    raw = shared_data / "hmdb51"
    assert len(list((raw / hmdb51.LISTS).iterdir())) == 153
    assert len(hmdb51.classes(raw)) == 51
    official = hmdb51.official_splits(raw, NO_CLIPS)
    label = official.clip_id.str.partition("/")[0]
    counts = Counter(zip(label, official.split_id, official.subset, strict=True))
    assert len(counts) == 51 * 3 * 2
    assert {n for (_, _, subset), n in counts.items() if subset == "train"} == {70}
    assert {n for (_, _, subset), n in counts.items() if subset == "test"} == {30}


def test_official_lists_keep_sources_of_a_class_together(shared_data: Path) -> None:
    official = hmdb51.official_splits(shared_data / "hmdb51", NO_CLIPS)
    parts = [clip_id.split("/") for clip_id in official.clip_id]
    official["group"] = [f"{label}/{hmdb51.source(name, label)}" for label, name in parts]
    assert (official.groupby(["split_id", "group"]).subset.nunique() == 1).all()
    assert not (official.group == official.clip_id).any()  # every name was understood


def test_real_clips(shared_data: Path) -> None:
    found = hmdb51.find_clips(shared_data / "hmdb51")
    assert len(found) == 7
    expected = pd.read_csv(shared_data / "clips.csv").query("dataset == 'hmdb51'")
    official = hmdb51.official_splits(shared_data / "hmdb51", found).merge(found)
    for split_id in "123":
        ours = official[official.split_id == split_id].set_index("path").subset
        named = expected.path.str.removeprefix("hmdb51/")
        theirs = expected.set_index(named)[f"split{split_id}"].dropna()
        theirs = theirs[theirs.isin(["train", "test"])]
        assert ours.to_dict() == theirs.to_dict()
