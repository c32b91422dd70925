"""Any folder of class folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flowsight.datasets.clips.adapters import folder
from flowsight.errors import InputError


def fill(raw: Path, names: dict[str, int]) -> Path:
    """Files with a video's name; adapters do not open them."""
    for label, count in names.items():
        (raw / label).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            (raw / label / f"clip {index}.mp4").touch()
    return raw


def test_classes_clips_and_splits(tmp_path: Path) -> None:
    raw = fill(tmp_path, {"b": 10, "a": 10, "one": 1, ".git": 2, "truth": 1})
    (raw / "a" / "notes.txt").touch()
    (raw / "a" / ".DS_Store").touch()
    assert folder.classes(raw) == ["a", "b", "one"]
    found = folder.find_clips(raw)
    assert len(found) == 21
    assert found.group.tolist() == found.clip_id.tolist()
    official = folder.official_splits(raw, found)
    official["label"] = official.clip_id.str.partition("/")[0]
    counts = official.groupby(["split_id", "label", "subset"]).size()
    for split_id in folder.SPLIT_IDS:
        assert counts[split_id, "a", "test"] == 3
        assert counts[split_id, "one"].to_dict() == {"train": 1}
    tests = [set(official.query("split_id == @k and subset == 'test'").clip_id) for k in "123"]
    assert tests[0] != tests[1] != tests[2]


def test_videos_below_videos(tmp_path: Path) -> None:
    raw = tmp_path
    fill(raw / "videos", {"a": 2})
    assert folder.find_clips(raw).path.tolist() == ["videos/a/clip 0.mp4", "videos/a/clip 1.mp4"]


def test_new_clips_move_few_others(tmp_path: Path) -> None:
    raw = fill(tmp_path, {"a": 40, "b": 40})
    before = folder.official_splits(raw, folder.find_clips(raw))
    fill(raw, {"a": 42})
    after = folder.official_splits(raw, folder.find_clips(raw))
    merged = before.merge(after, on=["clip_id", "split_id"])
    assert (merged.subset_x != merged.subset_y).sum() <= 6
    other = merged[merged.clip_id.str.startswith("b/")]
    assert (other.subset_x == other.subset_y).all()


def test_groups_csv_keeps_persons_together(tmp_path: Path) -> None:
    raw = fill(tmp_path, {"a": 8, "b": 8})
    rows = [f"{label}/clip {i},0{i % 4}" for label in "ab" for i in range(8)]
    (raw / "groups.csv").write_text("clip_id,group\n" + "\n".join(rows) + "\n")
    found = folder.find_clips(raw)
    assert set(found.group) == {"00", "01", "02", "03"}  # text, not numbers
    official = folder.official_splits(raw, found).merge(found)
    assert (official.groupby(["split_id", "group"]).subset.nunique() == 1).all()
    (raw / "groups.csv").write_text("clip_id,group\n" + "\n".join(rows[1:]) + "\n")
    with pytest.raises(InputError, match="found none for 'a/clip 0'"):
        folder.find_clips(raw)
    (raw / "groups.csv").write_text("clip_id,group\n" + "\n".join([rows[0], *rows]) + "\n")
    with pytest.raises(InputError, match="twice"):
        folder.find_clips(raw)


def test_faults(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="found no folder"):
        folder.find_clips(tmp_path)
    raw = fill(tmp_path / "twice", {"a": 1})
    (raw / "a" / "clip 0.AVI").touch()
    with pytest.raises(InputError, match="expected one video for clip 'a/clip 0'"):
        folder.find_clips(raw)
    raw = fill(tmp_path / "control", {"a": 1})
    (raw / "a" / "bad\nname.avi").touch()
    with pytest.raises(InputError, match="plain file or class name") as caught:
        folder.find_clips(raw)
    assert "\n" not in str(caught.value)


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    raw = fill(tmp_path / "raw", {"a": 2})
    (raw / "a" / "again.mp4").symlink_to(raw / "a" / "clip 0.mp4")
    assert len(folder.find_clips(raw)) == 3
    secret = tmp_path / "secret.mp4"
    secret.touch()
    (raw / "a" / "out.mp4").symlink_to(secret)
    with pytest.raises(InputError, match="leads out"):
        folder.find_clips(raw)
