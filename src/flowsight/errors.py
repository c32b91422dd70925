"""Errors for people, and the exit codes every runner understands.

A user's mistake is one line on stderr and an exit code, never a traceback:

| code | meaning |
|---|---|
| 0 | done |
| 1 | anything else (a bug: the traceback is shown) |
| 2 | input or parameters are wrong |
| 3 | a gate refused (validation, promotion) |
| 75 | resource, connection or lost worker: the only one worth a retry |

`dvc repro` exits 255 whatever its command returned, so a failing stage also writes
`{"kind": ..., "message": ...}` to the file named by `$FLOWSIGHT_FAILURE`.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar


class FlowsightError(Exception):
    """Something a person can act on; the message says expected, got, where, what to do."""

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "error"


class InputError(FlowsightError):
    """Input data or parameters are wrong: trying again changes nothing."""

    exit_code: ClassVar[int] = 2
    kind: ClassVar[str] = "input"


class GateError(FlowsightError):
    """A gate (validation, promotion) looked at the result and refused it."""

    exit_code: ClassVar[int] = 3
    kind: ClassVar[str] = "gate"


class ResourceError(FlowsightError):
    """The machine lacks something (space, memory, a connection): trying again may help."""

    exit_code: ClassVar[int] = 75
    kind: ClassVar[str] = "resource"


class MemoryLimitError(ResourceError):
    """A device's memory does not hold the work: the next try takes smaller pieces."""

    kind: ClassVar[str] = "memory"


_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def as_flowsight_error(error: BaseException) -> FlowsightError | None:
    """Translate the errors of the operating system that have a plain meaning.

    Returns:
        The error itself if it is ours, its translation, or None where it is a bug.
    """
    if isinstance(error, ResourceError) and _is_memory(error.__context__):
        return MemoryLimitError(str(error))
    if isinstance(error, FlowsightError):
        return error
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        where = error.filename or Path.cwd()
        return ResourceError(f"no space left while writing {where}; free some space and run again")
    if _is_memory(error):
        return MemoryLimitError("out of memory; lower FLOWSIGHT_WORKERS or the batch size")
    if isinstance(error, PermissionError):
        return InputError(f"not allowed to read or write {error.filename}; check its permissions")
    return None


def _is_memory(error: BaseException | None) -> bool:
    # torch's by its name, for torch takes seconds to import
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def report_failure(kind: str, message: str) -> None:
    """Leave `{kind, message}` where `run-stage` looks for it, if it asked for that."""
    target = os.environ.get("FLOWSIGHT_FAILURE")
    if target:
        text = json.dumps({"kind": kind, "message": message}, sort_keys=True)
        Path(target).write_text(text + "\n", encoding="utf-8")


def guard(main: Callable[[], None]) -> None:
    """Run a command: a user's mistake becomes one line on stderr and an exit code.

    Args:
        main: the command; its return value is ignored.

    Raises:
        SystemExit: with the code of the table above, on any failure.
    """
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:  # the one place that turns errors into exit codes
        known = as_flowsight_error(error)
        if known is None:
            traceback.print_exc()
            report_failure("bug", f"{type(error).__name__}: {error}")
            raise SystemExit(1) from None
        message = " ".join(str(known).split())
        print(f"error: {message}", file=sys.stderr)
        report_failure(known.kind, message)
        raise SystemExit(known.exit_code) from None
