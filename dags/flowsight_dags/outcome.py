"""What the exit code of a `flowsight` command means to Airflow.

| code | meaning | Airflow |
|---|---|---|
| 0 | done | success |
| 1, 2 | a bug; wrong input or parameters | failed at once: again would end the same |
| 3 | a gate refused | failed at once, or skipped where a refusal is an answer (`promote`) |
| 75 | resource or connection | retried |
| a signal, above 128 | killed: out of memory, a lost machine | retried |
"""

from __future__ import annotations

import json
import signal
from typing import Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

RETRIED = 75
REFUSED = 3
_KINDS = {1: "failed", 2: "input refused", REFUSED: "gate refused", RETRIED: "resource missing"}
_OUTPUT_LINES = 200


class GateRefused(AirflowFailException):
    """A gate looked at the result and refused it: failed, and no retry."""


def explain(code: int, message: str) -> str:
    """One line for the log, the task's page and the notification."""
    if code < 0 or code > 128:
        number = -code if code < 0 else code - 128
        known = number in signal.valid_signals()
        name = signal.Signals(number).name if known else f"signal {number}"
        return f"killed by {name} (out of memory, or the machine went away); last words: {message}"
    return f"{_KINDS.get(code, 'failed')} (exit code {code}): {message}"


def as_exception(code: int, message: str, *, skip_refused: bool) -> AirflowException:
    """The exception that makes Airflow do what the table above says.

    Args:
        code: exit code, not 0; negative for a signal.
        message: what the command said last.
        skip_refused: whether a refusal ends as skipped.
    """
    text = explain(code, message)
    if code == REFUSED:
        return AirflowSkipException(text) if skip_refused else GateRefused(text)
    if code == RETRIED or code < 0 or code > 128:
        return AirflowException(text)
    return AirflowFailException(text)


def last_words(lines: list[str]) -> str:
    """The line that says why: the last that begins with `error: `, else the last one."""
    for line in reversed(lines):
        if line.startswith("error: "):
            return line.removeprefix("error: ")
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")


def result(lines: list[str]) -> dict[str, Any]:
    """What the command hands on: the JSON object in its last line, else its output as text."""
    last = next((line for line in reversed(lines) if line.strip()), "")
    try:
        value = json.loads(last)
    except ValueError:
        value = None
    if isinstance(value, dict):
        return value
    return {"output": "\n".join(lines[-_OUTPUT_LINES:])}
