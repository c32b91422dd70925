"""New clips come in, a clip goes out, and what nobody needs is removed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

Toy = Any  # tests/cluster/conftest.py

PIPELINE = """
stages:
  splits:
    cmd: ./step splits && mkdir -p data/splits/mine && ./split > data/splits/mine/1.csv
    deps: [data/raw/mine, split]
    outs: [data/splits/mine]
  train:
    cmd: >-
      ./step train && mkdir -p checkpoints/mine/spatial-1
      && cp data/splits/mine/1.csv checkpoints/mine/spatial-1/model
    deps: [data/splits/mine/1.csv]
    outs: [checkpoints/mine/spatial-1]
"""
SPLIT = """#!/bin/sh
echo clip_id,subset
cd data/raw/mine
for file in */*.avi; do
  case $file in *test*) subset=test;; *) subset=train;; esac
  echo "${file%.avi},$subset"
done
"""


def video(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 24))
    rng = np.random.default_rng(seed)
    for _ in range(3):
        writer.write(rng.integers(0, 255, (24, 32, 3)).astype(np.uint8))
    writer.release()
    return path


@pytest.fixture
def mine(toy: Toy) -> Toy:
    """The repository with a data set of one's own in it: nothing tracked yet."""
    (toy.source / "dvc.yaml").write_text(PIPELINE)
    (toy.source / "split").write_text(SPLIT)
    (toy.source / "split").chmod(0o755)
    path = toy.source / "params.yaml"
    text = path.read_text().replace("  name: sample\n", "  name: mine\n")
    path.write_text(text.replace("adapter: actors", "adapter: folder"))
    toy.commit("a data set of one's own")
    return toy


def take(toy: Toy, worker: Any, names: dict[str, int]) -> dict[str, Any]:
    for name, seed in names.items():
        video(toy.root / "drop" / name, seed)
    found: dict[str, Any] = worker.answer("ingest", "--drop", str(toy.root / "drop"))
    return found


def pulled(toy: Toy) -> list[str]:
    """Files of the data set as a fresh clone gets them."""
    clone = toy.root / f"clone-{len(list(toy.root.iterdir()))}"
    toy.run("git", "clone", "-q", toy.repo, clone, cwd=toy.root)
    toy.run(
        "dvc",
        "pull",
        "-q",
        "data/raw/mine",
        cwd=clone,
        DVC_GLOBAL_CONFIG_DIR=str(toy.root / "dvc-config"),
    )
    root = clone / "data/raw/mine"
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*"))


def head(toy: Toy) -> str:
    return str(toy.run("git", "rev-parse", "main", cwd=toy.repo))


def test_sound_clips_come_in_and_broken_ones_do_not(mine: Toy) -> None:
    drop, worker = mine.root / "drop", mine.worker("a")
    video(drop / "Walk/copy.avi", 1)
    (drop / "Run").mkdir()
    (drop / "Run/broken.avi").write_bytes(b"no video")
    (drop / "Run/notes.txt").write_text("?")
    (drop / "loose.avi").write_bytes(b"?")
    (drop / "Run/link.avi").symlink_to("/etc/hostname")
    (drop / "linked").symlink_to(mine.root)
    (drop / "Walk/.hidden.avi").write_bytes(b"?")
    answer = take(mine, worker, {"Walk/a.avi": 1, "Run/b.avi": 2})
    # two files of one content: the first by name is taken
    assert answer["added"] == ["Run/b.avi", "Walk/a.avi"]
    assert answer["duplicates"] == ["Walk/copy.avi"]
    assert answer["commit"] == head(mine)
    reasons = answer["quarantined"]
    assert set(reasons) == {
        "Run/broken.avi",
        "Run/notes.txt",
        "loose.avi",
        "Run/link.avi",
        "linked",
    }
    assert reasons["Run/link.avi"] == "a link, not a file"
    assert reasons["loose.avi"] == "expected <label>/<file>"
    assert (drop / "quarantine/Run/broken.avi").read_bytes() == b"no video"
    said = (drop / "quarantine/Run/broken.avi.reason.txt").read_text().strip()
    assert said == reasons["Run/broken.avi"]
    left = [path for path in drop.rglob("*") if path.is_file() and "quarantine" not in path.parts]
    assert left == [drop / "Walk/.hidden.avi"]
    assert pulled(mine) == ["Run/b.avi", "Walk/a.avi"]


def test_more_clips_are_one_commit_each_time_and_nothing_is_no_commit(mine: Toy) -> None:
    first = take(mine, mine.worker("a"), {"Walk/a.avi": 1})
    # another machine, which has none of the files
    second = take(mine, mine.worker("b"), {"Walk/b.avi": 2, "Walk/again.avi": 1})
    assert second["added"] == ["Walk/b.avi"]
    assert second["duplicates"] == ["Walk/again.avi"]
    assert mine.run("git", "rev-parse", "main~1", cwd=mine.repo) == first["commit"]
    third = take(mine, mine.worker("b"), {"Walk/a.avi": 5})
    assert third["commit"] is None
    assert third["quarantined"] == {"Walk/a.avi": "another video has this name"}
    assert head(mine) == second["commit"]
    assert pulled(mine) == ["Walk/a.avi", "Walk/b.avi"]


def test_a_kill_after_the_push_repeats_nothing(mine: Toy) -> None:
    take(mine, mine.worker("a"), {"Walk/a.avi": 1})
    # as if the drop folder had not been cleared
    again = take(mine, mine.worker("a"), {"Walk/a.avi": 1})
    assert (again["commit"], again["duplicates"]) == (None, ["Walk/a.avi"])
    assert not list((mine.root / "drop").iterdir())


def test_a_main_that_moves_meanwhile_is_no_loss(mine: Toy) -> None:
    worker = mine.worker("a")
    hook = mine.repo / "hooks/pre-receive"
    hook.write_text(  # the first push finds that somebody else was faster
        f"#!/bin/sh\nif [ ! -f {mine.root}/moved ]; then touch {mine.root}/moved\n"
        "unset GIT_QUARANTINE_PATH GIT_DIR\n"
        f"echo 'hint: Updates were rejected [remote rejected]' >&2; exit 1; fi\n"
    )
    hook.chmod(0o755)
    answer = take(mine, worker, {"Walk/a.avi": 1})
    assert (mine.root / "moved").exists()
    assert answer["commit"] == head(mine)


def test_a_work_tree_with_main_checked_out_follows(mine: Toy) -> None:
    """As with `make airflow`, whose repository is the one a person works in."""
    mine.run("git", "pull", "-q", "origin", "main", cwd=mine.source)
    worker = mine.worker("a", FLOWSIGHT_REPO=str(mine.source))
    answer = take(mine, worker, {"Walk/a.avi": 1})
    assert mine.run("git", "rev-parse", "main", cwd=mine.source) == answer["commit"]
    assert (mine.source / "data/raw/mine.dvc").is_file()
    assert mine.run("git", "status", "--porcelain", cwd=mine.source) == ""

    with (mine.source / "params.yaml").open("a") as file:
        file.write("# not committed\n")
    video(mine.root / "drop/Walk/b.avi", 2)
    code, _, said = worker.call("ingest", "--drop", str(mine.root / "drop"))
    assert code == 2
    assert "where main is checked out, without changes that are not committed" in said
    assert (mine.root / "drop/Walk/b.avi").is_file(), "it waits"
    assert mine.run("git", "rev-parse", "main", cwd=mine.source) == answer["commit"]


def test_an_official_data_set_and_a_rendered_one_take_nothing(toy: Toy) -> None:
    video(toy.root / "drop/Walk/a.avi", 1)
    worker = toy.worker("a")
    for name, words in (("sample", "is what the stage raw makes"), ("ucf101", "official lists")):
        code, _, err = worker.call("ingest", "--drop", str(toy.root / "drop"), "--dataset", name)
        assert code == 2
        assert words in err.splitlines()[-1]
    assert (toy.root / "drop/Walk/a.avi").exists()
    code, _, err = worker.call("ingest", "--drop", str(toy.root / "nothing"))
    assert code == 2


def finish(worker: Any, run_id: str) -> str:
    rev: str = worker.answer("prepare", "--run-id", run_id)["rev"]
    for name in ("splits", "train"):
        worker.stage(name, rev, run_id)
    worker.answer("gather", "--rev", rev, "--run-id", run_id)
    return rev


@pytest.mark.slow
def test_a_withdrawn_clip_and_the_models_that_saw_it(mine: Toy) -> None:
    worker, other = mine.worker("a"), mine.worker("b")
    take(mine, worker, {"Walk/a.avi": 1, "Walk/b.avi": 2, "Walk/test1.avi": 3})
    finish(worker, "r1")
    main = head(mine)
    asked = ["withdraw", "Walk/a"]
    dry = other.answer(*asked, "--dry-run")
    assert (dry["removed"], dry["commit"], head(mine)) == (["Walk/a.avi"], None, main)
    answer = other.answer(*asked)
    assert answer["commit"] == head(mine) != main
    (model,) = answer["retrain"]
    assert (model["stage"], model["split"], model["subset"]) == ("train", "1", "train")
    assert model["refs"] == ["runs/r1"]
    assert pulled(mine) == ["Walk/b.avi", "Walk/test1.avi"]
    # the next run trains without it; the test clip was learnt from by nobody
    finish(worker, "r2")
    assert "Walk/a" not in mine.in_repo("dvc.yaml", "main")
    answer = other.answer("withdraw", "Walk/test1")
    assert (answer["removed"], answer["retrain"]) == (["Walk/test1.avi"], [])
    code, _, err = other.call("withdraw", "Walk/nobody")
    assert code == 2
    assert "found no 'Walk/nobody'" in err


def objects(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.glob("files/md5/*/*")}


@pytest.mark.slow
def test_gc_removes_old_runs_and_what_only_they_had(mine: Toy) -> None:
    worker = mine.worker("a")
    take(mine, worker, {"Walk/a.avi": 1, "Walk/b.avi": 2})
    finish(worker, "old")
    store = mine.root / "store"
    everything = objects(store)
    worker.answer("withdraw", "Walk/a")
    finish(worker, "new")
    rev = worker.answer("prepare", "--run-id", "unfinished")["rev"]
    worker.stage("splits", rev, "unfinished")
    before = objects(store)
    assert before > everything
    # nothing is old enough; a dry run changes nothing
    young = worker.answer("gc", "--remote", "--keep-days", "1")
    assert not [one for one in young["removed"] if "run" in one["what"]]
    assert objects(store) == before
    (mine.root / "runs/new").joinpath("note.yaml").unlink(missing_ok=True)
    dry = worker.answer("gc", "--remote", "--keep-days", "0", "--dry-run")
    assert {"run new", "run old"} <= {one["what"].partition(":")[0] for one in dry["removed"]}
    assert objects(store) == before
    assert mine.run("git", "branch", "--list", "runs/*", cwd=mine.repo).split() == [
        "runs/new",
        "runs/old",
        "runs/unfinished",
    ]
    done = worker.answer("gc", "--remote", "--keep-days", "0")
    assert done["bytes"] > 0
    assert mine.run("git", "branch", "--list", "runs/*", cwd=mine.repo) == "runs/unfinished"
    assert sorted(path.name for path in (mine.root / "runs").iterdir()) == ["unfinished"]
    # what the unfinished run and main need is there: the run goes on, in another place
    other = mine.worker("b")
    assert other.stage("train", rev, "unfinished")["outcome"] == "ran"
    other.answer("gather", "--rev", rev, "--run-id", "unfinished")
    assert pulled(mine) == ["Walk/b.avi"]
    lost = before - objects(store)
    assert lost, "the withdrawn clip is still in the remote"
    video(mine.root / "again.avi", 1)
    import hashlib

    md5 = hashlib.md5((mine.root / "again.avi").read_bytes()).hexdigest()
    assert f"files/md5/{md5[:2]}/{md5[2:]}" in lost


def test_gc_waits_while_a_stage_is_under_way(mine: Toy) -> None:
    worker = mine.worker("a")
    rev = worker.answer("prepare", "--run-id", "r1")["rev"]
    lease = mine.root / "runs/r1/splits.lease"
    lease.parent.mkdir(parents=True)
    lease.write_text(json.dumps({"holder": "x", "workplace": "y"}))
    code, _, err = worker.call("gc")
    assert code == 75
    assert "splits of run r1 has a lease" in err
    assert rev


def test_gc_removes_work_that_nobody_went_on_with(mine: Toy) -> None:
    worker = mine.worker("a")
    worker.answer("prepare", "--run-id", "r1")
    kept = {
        "old": mine.root / "scratch" / "flow@0" / "aaaa" / "Walk" / "a.zip",
        "young": mine.root / "scratch" / "train@spatial-1" / "bbbb" / "last.ckpt",
    }
    for path in kept.values():
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * 100)
    long_ago = time.time() - 40 * 86400
    for path in (kept["old"], kept["old"].parent, kept["old"].parent.parent):
        os.utime(path, (long_ago, long_ago))
    answer = worker.answer("gc")
    assert {"what": "scratch flow@0/aaaa", "bytes": 100} in answer["removed"]
    assert not kept["old"].exists()
    assert kept["young"].exists()
