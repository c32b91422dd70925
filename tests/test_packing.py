"""The stages frames and flow: packs, status, determinism, and failures on the way."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import psutil
import pytest

from flowsight import flow
from flowsight.datasets.clips import flow as flow_packing
from flowsight.datasets.clips import frames as packing
from flowsight.errors import InputError, ResourceError
from flowsight.flow.quantize import quantize
from flowsight.video import pack, workers
from flowsight.video.decode import UnreadableVideo, decode

FLOW = {
    "method": "tvl1",
    "preset": "fast",
    "backend": "opencv",
    "bound_px": 20.0,
    "quality": 95,
    "size": None,
}


def moving_video(path: Path, num_frames: int = 4, seed: int = 0) -> Path:
    """A texture that moves 2 px to the right and 1 px down per frame, 64x48."""
    noise = np.random.default_rng(seed).integers(0, 256, (96, 160, 3)).astype(np.float32)
    wide = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for index in range(num_frames):
        left, top = 64 - 2 * index, 32 - index
        writer.write(wide[top : top + 48, left : left + 64].astype(np.uint8))
    writer.release()
    return path


def make_shard(root: Path, videos: dict[str, bytes | int]) -> Path:
    """A shard folder: for each clip_id the number of frames, or the file's bytes."""
    rows = []
    for index, (clip_id, content) in enumerate(videos.items()):
        path = root / "videos" / f"{clip_id}.avi"
        if isinstance(content, int):
            moving_video(path, content, seed=index)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append((clip_id, f"{clip_id}.avi", digest))
    root.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows, columns=["clip_id", "path", "sha256"], dtype=str)
    table.to_csv(root / "clips.csv", index=False)
    return root


def status(out: Path) -> dict[str, tuple[str, str]]:
    rows = pd.read_csv(out / "status.csv", dtype=str, keep_default_na=False)
    assert list(rows) == ["clip_id", "status", "reason"]
    return {row.clip_id: (row.status, row.reason) for row in rows.itertuples()}


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_frames_are_the_decoded_ones(tmp_path: Path) -> None:
    source = make_shard(tmp_path / "shard" / "0", {"Walk/v_Walk_g01.c01": 4})
    packing.pack_frames(source, tmp_path / "out", size=None, quality=95)
    path = tmp_path / "out" / "Walk" / "v_Walk_g01.c01.zip"
    assert sorted(tree(tmp_path / "out")) == ["Walk/v_Walk_g01.c01.zip", "status.csv"]
    assert status(tmp_path / "out") == {"Walk/v_Walk_g01.c01": ("ok", "")}
    video = source / "videos" / "Walk" / "v_Walk_g01.c01.avi"
    with zipfile.ZipFile(path) as archive:
        for index, frame in enumerate(decode(video)):
            assert archive.read(pack.frame_name(index)) == pack.encode_jpeg(frame, 95)
    assert pack.read_meta(path) == {
        "clip_id": "Walk/v_Walk_g01.c01",
        "sha256": hashlib.sha256(video.read_bytes()).hexdigest(),
        "timestamps_sec": [0.0, 0.1, 0.2, 0.3],
        "size": [64, 48],
        "quality": 95,
        "num_frames": 4,
    }


@pytest.mark.parametrize("size", [None, (80, 40)])
def test_flow_comes_from_decoded_frames_not_from_jpegs(
    tmp_path: Path, size: tuple[int, int] | None
) -> None:
    source = make_shard(tmp_path / "shard" / "0", {"Walk/a": 4})
    flow_packing.pack_flow(source, tmp_path / "out", **{**FLOW, "size": size})
    path = tmp_path / "out" / "Walk" / "a.zip"
    frames = decode(source / "videos" / "Walk" / "a.avi", size)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    with zipfile.ZipFile(path) as archive:
        for index in range(3):
            field = flow.tvl1(grey[index], grey[index + 1], preset="fast")
            for name, component in zip(pack.flow_names(index), field, strict=True):
                expected = pack.encode_jpeg(quantize(component, 20.0), 95)
                assert archive.read(name) == expected
        assert len(archive.namelist()) == 7
    meta = pack.read_meta(path)
    assert meta["size"] == ([64, 48] if size is None else [80, 40])
    settings = {key: meta[key] for key in ("method", "preset", "backend", "bound_px", "quality")}
    assert settings == {key: FLOW[key] for key in settings}
    assert (meta["num_frames"], meta["num_fields"]) == (4, 3)
    assert meta["timestamps_sec"] == [0.0, 0.1, 0.2, 0.3]


def test_stored_flow_has_the_true_direction(tmp_path: Path) -> None:
    source = make_shard(tmp_path / "0", {"Walk/a": 4})
    flow_packing.pack_flow(source, tmp_path / "out", **FLOW)
    levels = pack.read_flow(tmp_path / "out" / "Walk" / "a.zip", [1])[0, :, 12:-12, 12:-12]
    u, v = (np.median(component) * 40 / 255 - 20 for component in levels)
    assert (u, v) == (pytest.approx(2, abs=0.2), pytest.approx(1, abs=0.2))


BROKEN = {
    "B/empty": b"",
    "B/text": b"not a video at all",
    "A/whole": 3,
    "B/single": 1,
}


def test_a_broken_clip_is_quarantined_and_stops_nothing(tmp_path: Path) -> None:
    source = make_shard(tmp_path / "0", BROKEN)
    (source / "videos" / "A" / "late.avi").write_bytes(b"x")
    table = (source / "clips.csv").read_text()
    table += "A/gone,A/gone.avi,00\nA/late,A/late.avi,00\n"
    (source / "clips.csv").write_text(table)
    packing.pack_frames(source, tmp_path / "frames", size=None, quality=90)
    flow_packing.pack_flow(source, tmp_path / "flow", **FLOW)
    expected = {
        "A/gone": ("quarantined", "missing file"),
        "A/late": ("quarantined", "checksum differs from clips.csv"),
        "A/whole": ("ok", ""),
        "B/empty": ("quarantined", "empty file"),
        "B/single": ("ok", ""),
        "B/text": ("quarantined", "not a video (text)"),
    }
    assert status(tmp_path / "frames") == expected
    assert list(status(tmp_path / "frames")) == sorted(expected)
    expected["B/single"] = ("quarantined", "fewer than 2 frames")
    assert status(tmp_path / "flow") == expected
    assert sorted(tree(tmp_path / "frames")) == ["A/whole.zip", "B/single.zip", "status.csv"]
    assert sorted(tree(tmp_path / "flow")) == ["A/whole.zip", "status.csv"]


def test_opencv_errors_quarantine_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_shard(tmp_path / "0", {"A/a": 2})
    monkeypatch.setattr(cv2, "imencode", lambda *_: cv2.resize(np.zeros((0, 0)), (1, 1)))
    packing.pack_frames(source, tmp_path / "out", size=None, quality=90)
    ((state, reason),) = status(tmp_path / "out").values()
    assert state == "quarantined"
    assert reason.startswith("OpenCV: ")


def test_empty_shard(tmp_path: Path) -> None:
    source = make_shard(tmp_path / "3", {})
    packing.pack_frames(source, tmp_path / "frames", size=None, quality=90)
    flow_packing.pack_flow(source, tmp_path / "flow", **FLOW)
    for out in ("frames", "flow"):
        assert tree(tmp_path / out) == {"status.csv": b"clip_id,status,reason\n"}


def test_bytes_do_not_depend_on_workers_or_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = {f"{label}/c{index}": 3 for label in "AB" for index in range(3)}
    trees = []
    for count in ("1", "2", "5"):
        source = make_shard(tmp_path / count / "0", clips | {"B/text": b"text"})
        monkeypatch.setenv("FLOWSIGHT_WORKERS", count)
        packing.pack_frames(source, tmp_path / count / "frames", size=(40, 30), quality=90)
        flow_packing.pack_flow(source, tmp_path / count / "flow", **FLOW)
        trees.append([tree(tmp_path / count / kind) for kind in ("frames", "flow")])
    assert trees[0] == trees[1] == trees[2]


def test_labels_that_look_like_gaps_are_names(tmp_path: Path) -> None:
    source = make_shard(tmp_path / "0", {"NA/null": 2})
    packing.pack_frames(source, tmp_path / "out", size=None, quality=90)
    assert status(tmp_path / "out") == {"NA/null": ("ok", "")}


def test_opencv_threads_are_given_back(tmp_path: Path) -> None:
    before = cv2.getNumThreads()
    packing.pack_frames(
        make_shard(tmp_path / "0", {"A/a": 2}), tmp_path / "o", size=None, quality=9
    )
    assert cv2.getNumThreads() == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"backend": "auto"}, "named flow.backend"),
        ({"backend": "cuda"}, "expected a flow backend"),
        ({"preset": "cuda"}, "cuda"),
        ({"method": "brox"}, "brox"),
        ({"bound_px": 0.0}, "bound_px"),
        ({"quality": 0}, r"1\.\.100"),
        ({"size": (8, 64)}, "16 px"),
    ],
)
def test_wrong_settings_stop_before_any_clip(tmp_path: Path, change: dict, says: str) -> None:
    source = make_shard(tmp_path / "0", {"A/a": 2})
    with pytest.raises(InputError, match=says):
        flow_packing.pack_flow(source, tmp_path / "out", **(FLOW | change))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (None, "run stage manifest"),
        ("", "expected a table"),
        ("clip_id,path\nA/a,a.avi\n", "column sha256"),
        ("clip_id,path,sha256\nA/a,a.avi,0\nA/a,b.avi,0\n", "'A/a' again"),
        ("clip_id,path,sha256\n../a,a.avi,0\n", "'../a'"),
        ("clip_id,path,sha256\nA/a,/etc/passwd,0\n", "/etc/passwd"),
        ("clip_id,path,sha256\n,a.avi,0\n", "''"),
    ],
)
def test_wrong_shards(tmp_path: Path, table: str | None, says: str) -> None:
    if table is not None:
        (tmp_path / "clips.csv").write_text(table)
    with pytest.raises(InputError, match=says):
        packing.pack_frames(tmp_path, tmp_path / "out", size=None, quality=90)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_wrong_number_of_workers(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWSIGHT_WORKERS", text)
    with pytest.raises(InputError, match="FLOWSIGHT_WORKERS"):
        workers.num_workers()


LIMITED = """
import resource, sys
from pathlib import Path
from flowsight import errors
from flowsight.datasets.clips import frames as packing
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
source, out = map(Path, sys.argv[1:])
errors.guard(lambda: packing.pack_frames(source, out, size=None, quality=95))
"""


def test_no_space_is_one_line_and_leaves_what_was_there(tmp_path: Path) -> None:
    source = make_shard(tmp_path / "0", {"A/a": 8, "A/b": 8})
    out = tmp_path / "out"
    out.mkdir()
    (out / "before.txt").write_text("earlier output")
    # files over 6000 bytes fail in the kernel, as they do on a full disk
    command = [sys.executable, "-c", LIMITED, str(source), str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 75
    assert done.stderr == (
        f"error: no space left while writing {out}; free some space and run again\n"
    )
    assert tree(out) == {"before.txt": b"earlier output"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "out"]


def test_full_disk(tmp_path: Path, small_disk: Path) -> None:
    source = make_shard(tmp_path / "0", {f"A/{index}": 12 for index in range(6)})
    out = small_disk / "frames" / "0"
    with pytest.raises(ResourceError, match="no space left while writing"):
        packing.pack_frames(source, out, size=(320, 240), quality=100)
    assert not list((small_disk / "frames").iterdir())


@pytest.fixture
def small_disk(tmp_path: Path) -> object:
    """A file system of 256 KiB, where the system lets us mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not allowed to mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_bug_stops_the_run_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_shard(tmp_path / "0", {f"A/{index}": 3 for index in range(8)})
    calls = []

    def broken(*_: object) -> bytes:
        calls.append(1)
        raise ZeroDivisionError

    monkeypatch.setattr(pack, "encode_jpeg", broken)
    monkeypatch.setenv("FLOWSIGHT_WORKERS", "1")
    with pytest.raises(ZeroDivisionError):
        packing.pack_frames(source, tmp_path / "out", size=None, quality=90)
    assert len(calls) < 8
    assert not (tmp_path / "out").exists()


def test_fewer_clips_than_cores_share_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_shard(tmp_path / "0", {"A/a": 6})
    settings = FLOW | {"backend": "cpu"}
    trees = []
    for count in ("1", "4"):
        monkeypatch.setenv("FLOWSIGHT_WORKERS", count)
        flow_packing.pack_flow(source, tmp_path / count, **settings)
        trees.append(tree(tmp_path / count))
    assert trees[0] == trees[1]


def test_memory_bounds_the_pairs_solved_at_once(tmp_path: Path) -> None:
    video = moving_video(tmp_path / "v.avi", 2)
    assert flow_packing._solved_at_once(video, None, 16) == 16
    # a pair of 1080p frames takes 166 MB (80 B a pixel); whole GiBs stay for the rest
    assert flow_packing._solved_at_once(video, (1920, 1080), 16) == 4
    assert flow_packing._solved_at_once(video, (8192, 8192), 16) == 1


KEPT = """
import os, sys
from functools import partial
from pathlib import Path
from flowsight.video import shard
from flowsight.datasets.clips import frames as packing

def pack(clip, target, threads, log):
    if clip.clip_id == os.environ.get("DIE_AT"):
        # the whole run, as a machine that is switched off: no clean-up of any kind
        os.kill(int(os.environ["RUN"]), 9)
    with open(log, "a") as file:
        file.write(clip.clip_id + "\\n")
    packing.frames_of_video(clip.video, target, clip_id=clip.clip_id, size=None, quality=90)

if __name__ == "__main__":
    os.environ["RUN"] = str(os.getpid())
    source, out, keep, log = map(Path, sys.argv[1:])
    shard.work_through(source, out, partial(pack, log=str(log)), "frames", keep=keep)
"""


@pytest.mark.parametrize("count", ["1", "2"])
def test_killed_it_goes_on_at_the_first_unfinished_clip(tmp_path: Path, count: str) -> None:
    clips = {f"A/{index}": 3 for index in range(5)}
    source = make_shard(tmp_path / "0", clips | {"A/text": b"text"})
    whole, out, keep = tmp_path / "whole", tmp_path / "out" / "0", tmp_path / "kept" / "key"
    packing.pack_frames(source, whole, size=None, quality=90)
    (tmp_path / "script.py").write_text(KEPT)

    def run(log: Path, die_at: str) -> int:
        command = [sys.executable, str(tmp_path / "script.py"), source, out, keep, log]
        environment = {**os.environ, "FLOWSIGHT_WORKERS": count, "DIE_AT": die_at}
        return subprocess.run(list(map(str, command)), env=environment).returncode

    assert run(tmp_path / "first", "A/3") == -9
    assert not out.exists()
    first = (tmp_path / "first").read_text().split()
    finished = sorted(path.stem for path in keep.rglob("[!.]*.zip"))
    assert finished
    assert {f"A/{name}" for name in finished} <= set(first)
    assert run(tmp_path / "second", "nothing") == 0
    second = (tmp_path / "second").read_text().split()
    assert not {f"A/{name}" for name in finished} & set(second)
    assert tree(out) == tree(whole)
    assert not keep.exists()
    assert [path.name for path in out.parent.iterdir()] == ["0"]


def test_a_kept_pack_that_is_not_whole_is_made_again(tmp_path: Path) -> None:
    source = make_shard(tmp_path / "0", {"A/a": 3})
    keep = tmp_path / "keep"
    (keep / "A").mkdir(parents=True)
    (keep / "A" / "a.zip").write_bytes(b"PK cut off by a power failure")
    packing.pack_frames(source, tmp_path / "out", size=None, quality=90, keep=keep)
    assert pack.num_frames(tmp_path / "out" / "A" / "a.zip") == 3


def test_killed_outright_it_leaves_no_worker(tmp_path: Path) -> None:
    source = make_shard(tmp_path / "0", {f"A/{index}": 30 for index in range(20)})
    code = (
        "import sys; from pathlib import Path;"
        "from flowsight.datasets.clips import flow as flow_packing;"
        f"flow_packing.pack_flow(Path({str(source)!r}), Path({str(tmp_path / 'out')!r}),"
        f" **{FLOW | {'preset': 'opencv'}!r})"
    )
    environment = {**os.environ, "FLOWSIGHT_WORKERS": "2"}
    run = subprocess.Popen([sys.executable, "-c", code], env=environment)
    process = psutil.Process(run.pid)
    deadline = time.monotonic() + 60
    while len(children := process.children(recursive=True)) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)  # a resource tracker, two workers
    assert len(children) == 3
    run.kill()
    run.wait()
    _, left = psutil.wait_procs(children, timeout=20)
    assert left == []


def test_a_killed_worker_is_worth_a_retry(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="a worker process was killed"):
        workers.run(_kill_oneself, [1, 2], workers=2)


def _kill_oneself(item: int) -> str:
    os.kill(os.getpid(), 9)
    return str(item)


def test_flow_of_a_users_video_equals_the_stages(tmp_path: Path) -> None:
    source = make_shard(tmp_path / "0", {"a": 3})
    flow_packing.pack_flow(source, tmp_path / "stage", **FLOW)
    flow_packing.flow_of_video(source / "videos" / "a.avi", tmp_path / "user.zip", **FLOW)
    assert (tmp_path / "user.zip").read_bytes() == (tmp_path / "stage" / "a.zip").read_bytes()


@pytest.mark.parametrize("method", ["dis", "farneback"])
def test_other_methods(tmp_path: Path, method: str) -> None:
    video = moving_video(tmp_path / "v.avi", 3)
    flow_packing.flow_of_video(video, tmp_path / "deep" / "v.zip", method=method)
    path = tmp_path / "deep" / "v.zip"
    assert pack.read_meta(path)["method"] == method
    assert pack.read_flow(path, [0, 1]).shape == (2, 2, 48, 64)


@pytest.mark.parametrize(("name", "says"), [("none.avi", "missing"), ("text.avi", "not a video")])
def test_a_users_broken_video(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "text.avi").write_text("hello")
    with pytest.raises(UnreadableVideo, match=says):
        flow_packing.flow_of_video(tmp_path / name, tmp_path / "out.zip", preset="fast")
    moving_video(tmp_path / "one.avi", 1)
    with pytest.raises(UnreadableVideo, match="fewer than 2 frames"):
        flow_packing.flow_of_video(tmp_path / "one.avi", tmp_path / "out.zip", preset="fast")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.avi", "text.avi"]


@pytest.mark.parametrize("stage", ["frames", "flow"])
def test_stage_scripts(
    tmp_path: Path, repository: Path, stage: str, run_stage: Callable[..., str]
) -> None:
    make_shard(tmp_path / "data" / "0", {"A/a": 2, "A/text": b"text"})
    run_stage(repository / "stages" / f"{stage}.py", "data/0", "--out", f"out/{stage}/0")
    assert [state for state, _ in status(tmp_path / "out" / stage / "0").values()] == [
        "ok",
        "quarantined",
    ]


@pytest.fixture
def run_stage(tmp_path: Path, repository: Path) -> Callable[..., str]:
    (tmp_path / "params.yaml").write_bytes((repository / "params.yaml").read_bytes())

    def run(*command: object) -> str:
        done = subprocess.run(
            [sys.executable, *map(str, command)], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    return run


def test_real_clip(tmp_path: Path, shared_data: Path) -> None:
    clips = pd.read_csv(shared_data / "clips.csv", dtype=str, keep_default_na=False)
    row = clips[clips["path"].str.contains("climb_stairs/")].iloc[0]
    (tmp_path / "0" / "videos").mkdir(parents=True)
    (tmp_path / "0" / "videos" / "v.avi").symlink_to(shared_data / row["path"])
    table = pd.DataFrame({"clip_id": ["c/v"], "path": ["v.avi"], "sha256": [row["sha256"]]})
    table.to_csv(tmp_path / "0" / "clips.csv", index=False)
    packing.pack_frames(tmp_path / "0", tmp_path / "out", size=None, quality=95)
    flow_packing.pack_flow(tmp_path / "0", tmp_path / "flow", **{**FLOW, "size": (64, 48)})
    path = tmp_path / "out" / "c" / "v.zip"
    assert pack.num_frames(path) == int(row["frames"])
    assert pack.read_meta(path)["sha256"] == row["sha256"]
    assert pack.read_meta(tmp_path / "flow" / "c" / "v.zip")["num_fields"] == int(row["frames"]) - 1
