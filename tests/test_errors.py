"""A mistake is one line and an exit code; a bug keeps its traceback."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from flowsight import errors


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (errors.InputError("expected a, got b"), 2, "input"),
        (errors.GateError("3 clips"), 3, "gate"),
        (errors.ResourceError("no connection"), 75, "resource"),
        (OSError(errno.ENOSPC, "No space left on device", "out.zip"), 75, "resource"),
        (MemoryError(), 75, "memory"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 2, "input"),
        (ZeroDivisionError("division"), 1, "bug"),
    ],
)
def test_codes_and_note(
    error: BaseException,
    code: int,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FLOWSIGHT_FAILURE", str(tmp_path / "failure.json"))

    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as stop:
        errors.guard(main)
    assert stop.value.code == code
    assert json.loads((tmp_path / "failure.json").read_text())["kind"] == kind
    lines = capsys.readouterr().err.strip().splitlines()
    assert (len(lines) == 1) == (kind != "bug")


def test_a_device_that_is_full_is_known_behind_its_message() -> None:
    """Training says it in its own words; `run-stage` wants to know that smaller pieces may do."""

    class OutOfMemoryError(RuntimeError):  # torch's, by its name
        pass

    def train() -> None:
        try:
            raise OutOfMemoryError("CUDA out of memory")
        except RuntimeError:
            raise errors.ResourceError("expected a batch of 8 to fit") from None

    with pytest.raises(errors.ResourceError) as raised:
        train()
    known = errors.as_flowsight_error(raised.value)
    assert known is not None
    assert (known.kind, str(known)) == ("memory", "expected a batch of 8 to fit")


def test_success_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWSIGHT_FAILURE", str(tmp_path / "failure.json"))
    errors.guard(lambda: None)
    assert not list(tmp_path.iterdir())


def test_message_is_folded_to_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise errors.InputError("two\n  lines")

    with pytest.raises(SystemExit):
        errors.guard(main)
    assert capsys.readouterr().err == "error: two lines\n"


def test_command_line_says_what_is_wrong(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flowsight.cli", "repro"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: expected parameters in")
    assert len(done.stderr.splitlines()) == 1
