"""The comparison of two runs' outputs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

OLD = "stages:\n  a: {outs: [{path: p/a, md5: '1'}, {path: q, md5: '2'}]}\n"


def run(tmp_path: Path, new: str, *moves: str) -> tuple[int, str]:
    (tmp_path / "old.lock").write_text(OLD)
    (tmp_path / "new.lock").write_text(new)
    command = [sys.executable, ROOT / "scripts/same_outs.py", "old.lock", "new.lock", *moves]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    return done.returncode, done.stdout


def test_the_same_under_another_stage(tmp_path: Path) -> None:
    new = "stages:\n  b: {outs: [{path: p/a, md5: '1'}]}\n  c: {outs: [{path: q, md5: '2'}]}\n"
    assert run(tmp_path, new) == (0, "2 of 2 outputs are the same\n")


def test_moved_changed_lost_and_new_ones_are_named(tmp_path: Path) -> None:
    new = "stages:\n  a: {outs: [{path: r/a, md5: '1'}, {path: q, md5: '3'}]}\n"
    code, said = run(tmp_path, new, "p=r")
    assert (code, said) == (1, "differs: q\n1 of 2 outputs are the same\n")
    code, said = run(tmp_path, new)
    assert code == 1 and "only old: p/a" in said and "only new: r/a" in said


def test_wrong_arguments_are_told(tmp_path: Path) -> None:
    assert run(tmp_path, OLD, "no-move")[0] == 2


def test_a_file_that_is_now_in_a_folder(tmp_path: Path) -> None:
    """By the list that DVC's cache keeps of a folder."""
    new = "stages:\n  a: {outs: [{path: p/a, md5: abcd.dir}, {path: q, md5: '2'}]}\n"
    listed = tmp_path / ".dvc/cache/files/md5/ab/cd.dir"
    listed.parent.mkdir(parents=True)
    listed.write_text('[{"md5": "1", "relpath": "all.csv"}, {"md5": "7", "relpath": "b.csv"}]')
    assert run(tmp_path, new, "p/*=p/*/all.csv")[0] == 0
    assert run(tmp_path, new, "p/a=p/a/b.csv")[1].startswith("differs: p/a/b.csv")
    assert "only old: p/a/c.csv" in run(tmp_path, new, "p/a=p/a/c.csv")[1]
