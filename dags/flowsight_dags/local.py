"""Run a `flowsight` command on this machine, as a process group of its own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from airflow.sdk import BaseOperator
from airflow.sdk.definitions.context import Context
from airflow.sdk.exceptions import AirflowSkipException

from flowsight_dags import notify, outcome

_KEPT_LINES = 1000
# Airflow kills the task's own process five seconds after it asked it to stop
_GRACE_SEC = 4.0
_PR_SET_PDEATHSIG = 1


class FlowsightOperator(BaseOperator):
    """Run `flowsight ARGUMENTS...`; its exit code decides between success, failure and retry.

    No shell takes part, so nothing a form contains is ever interpreted, and no `.bashrc` moves
    another Python to the front of the PATH. The command does not see Airflow's own settings, which
    hold secrets. On timeout, or when marked as failed, the whole process group goes.

    Args:
        arguments: arguments after `flowsight`; empty ones are left out; none at all skips the task.
        skip_refused: whether exit code 3 ends as skipped instead of failed.
    """

    template_fields = ("arguments",)
    ui_color = "#e8f1fb"

    def __init__(
        self, *, arguments: Sequence[str] | Any, skip_refused: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.arguments = arguments
        self.skip_refused = skip_refused
        self._process: subprocess.Popen[str] | None = None

    def execute(self, context: Context) -> dict[str, Any] | None:
        if not self.arguments:
            raise AirflowSkipException("not part of this run")
        command = [find_command(), *(str(part) for part in self.arguments if part)]
        self.log.info("running %s", " ".join(command))
        code, output, errors = self._run(command)
        if code:
            message = outcome.last_words([*output, *errors])
            error = outcome.as_exception(code, message, skip_refused=self.skip_refused)
            context["ti"].xcom_push("failure", str(error))
            if isinstance(error, AirflowSkipException):
                notify.tell("refused", context, str(error))
            raise error
        return outcome.result(output) if self.do_xcom_push else None

    def _run(self, command: list[str]) -> tuple[int, list[str], list[str]]:
        """Exit code and the last lines of stdout and stderr; both go to the log as they come."""
        self._process = process = subprocess.Popen(
            command,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        output: deque[str] = deque(maxlen=_KEPT_LINES)
        errors: deque[str] = deque(maxlen=_KEPT_LINES)
        reader = threading.Thread(target=self._follow, args=(process.stderr, errors), daemon=True)
        reader.start()
        self._follow(process.stdout, output)
        code = process.wait()
        reader.join(_GRACE_SEC)
        return code, list(output), list(errors)

    def _follow(self, stream: IO[str] | None, lines: deque[str]) -> None:
        assert stream is not None
        for line in stream:
            text = line.rstrip("\n")
            lines.append(text)
            self.log.info("%s", text)

    def on_kill(self) -> None:
        """End the command and all it started."""
        if self._process is not None:
            stop_group(self._process)


def find_command() -> str:
    """`FLOWSIGHT_COMMAND`, else the command on the PATH, else the one beside this Python."""
    configured = os.environ.get("FLOWSIGHT_COMMAND")
    return configured or shutil.which("flowsight") or str(Path(sys.executable).parent / "flowsight")


def environment() -> dict[str, str]:
    """What the command may know: everything but Airflow's settings and connections."""
    hidden = ("AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    # a bash that a command starts must not take itself for a remote shell and read ~/.bashrc
    return {**kept, "SHLVL": "1", "PYTHONUNBUFFERED": "1"}


def stop_group(process: subprocess.Popen[str], grace_sec: float = _GRACE_SEC) -> None:
    """SIGTERM to the process group, SIGKILL to what is left of it after the grace time."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        end = time.monotonic() + grace_sec
        while time.monotonic() < end:
            process.poll()
            os.killpg(process.pid, 0)  # raises when nobody is left
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)


def _die_with_parent() -> None:
    """Have the kernel end the command when the task's process is killed outright."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
