"""The manifest: every clip ends somewhere, and a new one touches only its shard."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flowsight.datasets import tables
from flowsight.datasets.clips import manifest
from flowsight.errors import InputError
from flowsight.files import sha256

Ucf = Callable[..., Path]
Write = Callable[..., Path]
SHARDS = [0, 1, 5]


def run(raw: Path, out: Path, **options: object) -> Path:
    values: dict[str, object] = {"adapter": "ucf101", "shards": SHARDS, "max_absent": 0.0}
    folders = out / "manifest", out / "shards", out / "truth"
    manifest.write_manifest(raw, *folders, **(values | options))  # type: ignore[arg-type]
    return out


def content(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_tables_and_links(ucf: Ucf, tmp_path: Path) -> None:
    raw = ucf(groups=3)
    out = run(raw, tmp_path / "out")
    clips = tables.read(out / "manifest/clips.csv", tables.CLIPS)
    assert list(pd.read_csv(out / "manifest/clips.csv")) == tables.CLIPS
    assert clips.clip_id.tolist() == sorted(clips.clip_id)
    assert len(clips) == 9
    first = clips.iloc[0]
    assert (first.width, first.height, first.fps, first.num_frames) == (48, 32, 12.0, 3)
    assert first.sha256 == sha256(raw / first.path)
    for clip_id, shard in zip(clips.clip_id, clips["shard"], strict=True):
        assert shard == SHARDS[zlib.crc32(clip_id.encode()) % 3]
    status = tables.read(out / "manifest/status.csv", tables.STATUS)
    assert status.values.tolist() == [[clip_id, "ok", ""] for clip_id in clips.clip_id]
    assert (out / "manifest/classes.csv").read_text() == "index,label\n0,Jump\n1,Run\n2,Wave\n"
    for shard in SHARDS:
        rows = tables.read(out / f"shards/{shard}/clips.csv", tables.CLIPS)
        assert rows.clip_id.tolist() == clips.clip_id[clips["shard"] == shard].tolist()
        for path in rows.path:
            assert (out / f"shards/{shard}/videos" / path).samefile(raw / path)


def test_same_bytes_whatever_the_order_or_threads(ucf: Ucf, tmp_path: Path) -> None:
    one = content(run(ucf(groups=3), tmp_path / "one", threads=1))
    crlf = ucf(groups=3, eol=" \r\n", name="crlf")
    assert content(run(crlf, tmp_path / "two", threads=4)) == one
    assert content(run(crlf, tmp_path / "two", threads=4)) == one


def test_empty_shards_have_folders(ucf: Ucf, tmp_path: Path) -> None:
    out = run(ucf(groups=2), tmp_path / "out", shards=list(range(40)))
    for shard in range(40):
        assert (out / f"shards/{shard}/videos").is_dir()
        tables.read(out / f"shards/{shard}/clips.csv", tables.CLIPS)
    sizes = [len(tables.read(out / f"shards/{k}/clips.csv", tables.CLIPS)) for k in range(40)]
    assert sum(sizes) == 6
    assert 0 in sizes


def test_a_new_clip_touches_only_its_shard(ucf: Ucf, tmp_path: Path, write_video: Write) -> None:
    raw = ucf(groups=3)
    before = run(raw, tmp_path / "before") / "shards"
    write_video(raw / "videos/Run/v_Run_g09_c01.avi")
    after = run(raw, tmp_path / "after") / "shards"
    mine = manifest.shard_of("Run/v_Run_g09_c01", SHARDS)
    changed = [
        shard for shard in SHARDS if content(before / str(shard)) != content(after / str(shard))
    ]
    assert changed == [mine]


def test_broken_videos_are_quarantined_with_a_reason(ucf: Ucf, tmp_path: Path) -> None:
    raw = ucf(groups=4)
    broken = {"g02": b"", "g03": b"this is not a video", "g04": None}
    for group, data in broken.items():
        path = raw / f"videos/Run/v_Run_{group}_c01.avi"
        path.write_bytes(path.read_bytes()[:150] if data is None else data)
    out = run(raw, tmp_path / "out")
    status = tables.read(out / "manifest/status.csv", tables.STATUS).set_index("clip_id")
    bad = status[status.status == "quarantined"]
    assert bad.index.tolist() == [f"Run/v_Run_{group}_c01" for group in broken]
    assert bad.reason.str.len().between(3, 200).all()
    assert not bad.reason.str.contains(str(tmp_path), regex=False).any()
    clips = tables.read(out / "manifest/clips.csv", tables.CLIPS)
    assert len(clips) == 9
    assert not list((out / "shards").rglob("v_Run_g03*"))


def test_absent_clips(ucf: Ucf, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = ucf(groups=4)
    (raw / "videos/Run/v_Run_g02_c01.avi").unlink()
    with pytest.raises(InputError, match=r"1 of 12 listed clips absent.*v_Run_g02_c01"):
        run(raw, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    out = run(raw, tmp_path / "out", max_absent=0.1)
    assert "1 of 12 listed clips absent" in capsys.readouterr().err
    status = tables.read(out / "manifest/status.csv", tables.STATUS).set_index("clip_id")
    assert len(status) == 12
    assert status.status["Run/v_Run_g02_c01"] == "absent"
    assert status.reason["Run/v_Run_g02_c01"]


def test_empty_classes_are_dropped_only_when_allowed(
    ucf: Ucf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = ucf(groups=2)
    for path in (raw / "videos/Run").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"1 of 3 classes without a readable clip.*\(Run\)"):
        run(raw, tmp_path / "out")
    out = run(raw, tmp_path / "out", max_absent=1.0)
    assert "classes dropped" in capsys.readouterr().err
    assert (out / "manifest/classes.csv").read_text() == "index,label\n0,Jump\n1,Wave\n"


def test_earlier_outputs_survive_a_failure(ucf: Ucf, tmp_path: Path) -> None:
    raw = ucf(groups=2)
    before = content(run(raw, tmp_path / "out"))
    (raw / "videos/Run/v_Run_g02_c01.avi").unlink()
    with pytest.raises(InputError):
        run(raw, tmp_path / "out")
    assert content(tmp_path / "out") == before
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["manifest", "shards", "truth"]


def test_missing_data_and_unknown_adapter(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run `flowsight import weizmann SOURCE`"):
        run(tmp_path / "weizmann", tmp_path / "out", adapter="weizmann")
    with pytest.raises(InputError, match="run `dvc repro sample`"):
        run(tmp_path / "sample", tmp_path / "out", adapter="actors")
    with pytest.raises(InputError, match=r"dataset\.adapter.*'os'"):
        run(tmp_path, tmp_path / "out", adapter="os")
    (tmp_path / "weizmann/videos/run").mkdir(parents=True)
    with pytest.raises(InputError, match="found none"):
        run(tmp_path / "weizmann", tmp_path / "out", adapter="weizmann")


def test_truth_is_brought_along(ucf: Ucf, tmp_path: Path) -> None:
    raw = ucf(groups=2)
    assert (run(raw, tmp_path / "out") / "truth/index.csv").read_text() == "clip_id,path\n"
    (raw / "truth/Run").mkdir(parents=True)
    np.savez(raw / "truth/Run/v_Run_g01_c01.npz", boxes=np.zeros((3, 4), np.float32))
    out = run(raw, tmp_path / "out")
    index = tables.read(out / "truth/index.csv", ["clip_id", "path"])
    assert index.values.tolist() == [["Run/v_Run_g01_c01", "Run/v_Run_g01_c01.npz"]]
    with np.load(out / "truth" / index.path[0]) as truth:
        assert truth["boxes"].shape == (3, 4)


def test_names_that_look_like_something_else(tmp_path: Path, write_video: Write) -> None:
    names = ["nan", "1e3", "(HQ) a+b!!! #1, 'x'", "żółć", '"q"', "null"]
    for label in ("NA", "001"):
        for name in names:
            write_video(tmp_path / "raw" / label / f"{name}.avi")
    out = run(tmp_path / "raw", tmp_path / "out", adapter="folder", shards=[0])
    clips = tables.read(out / "manifest/clips.csv", tables.CLIPS)
    assert set(clips.clip_id) == {f"{label}/{name}" for label in ("NA", "001") for name in names}
    assert tables.read(out / "manifest/classes.csv", tables.CLASSES).label.tolist() == ["001", "NA"]
    assert all((out / "shards/0/videos" / path).is_file() for path in clips.path)


def test_copies_where_links_cannot_be(
    ucf: Ucf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    raw = ucf(groups=2)
    linked = content(run(raw, tmp_path / "linked"))
    monkeypatch.setattr(os, "link", refuse)
    assert content(run(raw, tmp_path / "copied")) == linked
    assert all(path.stat().st_nlink == 2 for path in raw.rglob("*.avi"))


@pytest.mark.parametrize("name", ["hmdb51", "weizmann", "ucf101"])
def test_real_frame_counts(shared_data: Path, tmp_path: Path, name: str) -> None:
    """Against `clips.csv` of the sample data, which was counted by decoding."""
    wanted = pd.read_csv(shared_data / "clips.csv").query("dataset == @name")
    chosen = wanted.iloc[::10] if name != "hmdb51" else wanted
    raw = tmp_path / "raw"
    for path in chosen.path:
        target = raw / Path(path).relative_to(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((shared_data / path).read_bytes())
    for folder in ("ucfTrainTestlist", "testTrainMulti_7030_splits"):
        if (shared_data / name / folder).is_dir():
            (raw / folder).mkdir()
            for path in (shared_data / name / folder).iterdir():
                (raw / folder / path.name).write_bytes(path.read_bytes())
    out = run(raw, tmp_path / "out", adapter=name, max_absent=1.0)
    clips = tables.read(out / "manifest/clips.csv", tables.CLIPS)
    ours = clips.set_index(name + "/" + clips.path)
    theirs = chosen.set_index("path").loc[ours.index]
    assert len(ours) == len(chosen)
    assert ours.num_frames.tolist() == theirs.frames.tolist()
    assert ours.num_frames_header.tolist() == theirs.frames_header.tolist()
    assert ours.sha256.tolist() == theirs.sha256.tolist()
    assert ours.width.tolist() == theirs.width.tolist()
    np.testing.assert_allclose(ours.fps, theirs.fps, atol=0.01)
