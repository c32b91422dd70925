"""What is on disk when a training logs, and when it is killed."""

from __future__ import annotations

import json
import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flowsight.errors import InputError
from flowsight.tracking import spool

START = {"name": "x", "uri": "sqlite:///x", "params": {}, "tags": {}}


def test_lines_come_as_they_were_written(tmp_path: Path) -> None:
    kept = spool.Spool(tmp_path, START)
    lines = spool.Lines(kept.path)
    assert lines.start["name"] == "x" and len(lines.start["id"]) == 32
    assert lines.read() == []
    kept.log({"loss": 0.5, "nan": float("nan")}, 1)
    kept.log({"loss": 0.25}, 2)
    first, second = lines.read()
    assert first["metrics"]["loss"] == 0.5 and first["metrics"]["nan"] != first["metrics"]["nan"]
    assert (second["metrics"], second["step"]) == ({"loss": 0.25}, 2)
    assert abs(second["time_ms"] - 1000 * time.time()) < 60_000
    kept.close("FINISHED")
    assert [message["end"] for message in lines.read()] == ["FINISHED"]
    assert kept.path.stat().st_mode & 0o77 == 0


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    kept = spool.Spool(tmp_path, START)
    lines = spool.Lines(kept.path)
    whole = json.dumps({"metrics": {"a": 1.0}, "step": 1, "time_ms": 1}).encode() + b"\n"
    with kept.path.open("ab") as file:
        file.write(whole + whole[:10])
    assert len(lines.read()) == 1 and lines.has_rest and lines.lost == 0
    with kept.path.open("ab") as file:
        file.write(whole[10:])
    assert len(lines.read()) == 1 and not lines.has_rest
    with kept.path.open("ab") as file:
        file.write(b"\x00\xff garbage\n" + whole)
    assert len(lines.read()) == 1 and lines.lost == 1


def test_after_a_full_disk_the_next_line_is_whole(tmp_path: Path) -> None:
    kept = spool.Spool(tmp_path, START)
    lines, real = spool.Lines(kept.path), kept._file

    class Full:
        def write(self, line: bytes) -> int:
            return real.write(line[:7])

    kept._file = Full()  # type: ignore[assignment]
    with pytest.raises(OSError, match="no space left"):
        kept.log({"loss": 1.0}, 1)
    kept._file = real
    kept.log({"loss": 0.5}, 2)
    assert [message["step"] for message in lines.read()] == [2] and lines.lost == 1


def test_a_file_that_is_no_spool(tmp_path: Path) -> None:
    for content in ("", "{}\n", "[1]\n", '{"start": {"id": "x"', '{"start": null}\n'):
        path = tmp_path / "x.jsonl"
        path.write_text(content)
        with pytest.raises(InputError, match="its first line is none"):
            spool.Lines(path)


def test_a_living_writer_is_known_from_a_dead_one(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom flowsight.tracking import spool\n"
        f"kept = spool.Spool(Path(sys.argv[1]), {START})\nprint(kept.path, flush=True)\n"
        "time.sleep(60)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    path = Path(process.stdout.readline().strip())
    assert spool.waiting(tmp_path) == [path] and spool.is_written(path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not spool.is_written(path) and not spool.is_written(tmp_path / "gone.jsonl")


def test_a_forked_process_keeps_no_spool_open(tmp_path: Path) -> None:
    """A loader's processes may outlive the end of the run."""
    kept = spool.Spool(tmp_path, START)
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(30,))
    child.start()
    try:
        assert spool.is_written(kept.path)
        kept.close("FINISHED")
        assert not spool.is_written(kept.path)
    finally:
        child.kill()
        child.join()


def test_one_sender_at_a_time(tmp_path: Path) -> None:
    kept = spool.Spool(tmp_path, START)
    kept.close("FINISHED")
    with spool.claimed(kept.path) as mine, spool.claimed(kept.path) as theirs:
        assert (mine, theirs) == (True, False)
    with spool.claimed(kept.path) as mine:
        assert mine
        kept.path.unlink()
    with spool.claimed(kept.path) as mine:
        assert not mine  # somebody else has sent it
    assert list(tmp_path.iterdir()) == []
