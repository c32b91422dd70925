"""Outputs appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from flowsight import files


def test_folder_replaces_the_old_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old.txt").write_text("old")
    with files.atomic_dir(out) as folder:
        (folder / "new.txt").write_text("new")
        assert (out / "old.txt").exists()
    assert [p.name for p in out.iterdir()] == ["new.txt"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_failure_leaves_the_old_one_and_no_litter(tmp_path: Path) -> None:
    out, file = tmp_path / "out", tmp_path / "file"
    out.mkdir()
    (out / "old.txt").write_text("old")
    file.write_text("old")
    with pytest.raises(KeyError), files.atomic_dir(out) as folder:
        (folder / "new.txt").write_text("new")
        raise KeyError
    with pytest.raises(KeyError), files.atomic_file(file) as temporary:
        temporary.write_text("new")
        raise KeyError
    assert [p.name for p in out.iterdir()] == ["old.txt"]
    assert file.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "out"]


def test_new_files_are_readable_by_others(tmp_path: Path) -> None:
    with files.atomic_dir(tmp_path / "out") as folder:
        files.write_json({"b": 1, "a": [1, 2]}, folder / "x.json")
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "out" / "x.json").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "out" / "x.json").read_text().startswith('{\n  "a"')


def test_csv_has_lf_and_no_index(tmp_path: Path) -> None:
    files.write_csv(pd.DataFrame({"a": [1, 2], "b": ["x", "ü"]}), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_bytes() == "a,b\n1,x\n2,ü\n".encode()


def test_hash_is_sha256_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")  # FIPS 180-4, example B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256(tmp_path / "x") == expected


def test_no_json_with_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        files.write_json({"x": float("nan")}, tmp_path / "x.json")
    assert list(tmp_path.iterdir()) == []
