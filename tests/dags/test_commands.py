"""The operator around a command: what it hides, how it stops, what it hands on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from .conftest import ROOT


@pytest.fixture(scope="module", autouse=True)
def modules() -> None:
    """The DAGs' own package, importable as in Airflow's processes."""
    if str(ROOT / "dags") not in sys.path:
        sys.path.insert(0, str(ROOT / "dags"))


def start(*script: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", "-c", "; ".join(script)],
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
        env=env,
    )


def test_stopping_takes_the_children_along() -> None:
    from flowsight_dags import local

    process = start("sleep 300 & echo $!", "trap '' TERM", "echo ready", "sleep 300", "sleep 300")
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.stdout.readline()
    begin = time.monotonic()
    local.stop_group(process, grace_sec=0.5)
    process.wait(10)
    assert time.monotonic() - begin < 60  # not the 300 s that it sleeps
    assert process.returncode == -signal.SIGKILL  # it did not listen
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie"


def test_stopping_waits_no_longer_than_it_must() -> None:
    from flowsight_dags import local

    process = start("echo ready", "exec sleep 300")
    assert process.stdout is not None
    process.stdout.readline()
    begin = time.monotonic()
    local.stop_group(process, grace_sec=300)
    assert time.monotonic() - begin < 60
    assert process.wait(10) == -signal.SIGTERM


def test_timeout_ends_the_command_and_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowTaskTimeout
    from airflow.sdk.execution_time.timeout import timeout
    from flowsight_dags.local import FlowsightOperator

    script = tmp_path / "flowsight"
    script.write_text(f"#!/bin/bash\nsleep 300 &\necho $! > {tmp_path}/child\nwait\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    task = FlowsightOperator(task_id="x", arguments=["gc"])
    # as Airflow's task runner does it
    with pytest.raises(AirflowTaskTimeout), timeout(1.5):
        task._run(["flowsight"])
    task.on_kill()
    child = int((tmp_path / "child").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie"


@pytest.mark.slow
def test_a_killed_task_takes_its_command_along(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'dags')!r})\n"
        "import subprocess, time\n"
        "from flowsight_dags.local import _die_with_parent\n"
        "p = subprocess.Popen(['sleep', '300'], start_new_session=True,"
        " preexec_fn=_die_with_parent)\n"
        "print(p.pid, flush=True); time.sleep(300)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline().splitlines()[-1])
    process.kill()
    process.wait()
    end = time.monotonic() + 10
    while psutil.pid_exists(child) and psutil.Process(child).status() != "zombie":
        assert time.monotonic() < end, "the command outlived its task"
        time.sleep(0.05)


def test_commands_do_not_see_airflows_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowsight_dags import local

    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "s3cr3t-1")
    monkeypatch.setenv("AIRFLOW_CONN_X", "http://user:s3cr3t-1@host")
    monkeypatch.setenv("AIRFLOW_CTX_TRY_NUMBER", "2")
    monkeypatch.setenv("FLOWSIGHT_RUNS", "s3://runs")
    seen = local.environment()
    assert "s3cr3t-1" not in " ".join(seen.values())
    assert seen["FLOWSIGHT_RUNS"] == "s3://runs" and seen["AIRFLOW_CTX_TRY_NUMBER"] == "2"
    assert seen["SHLVL"] == "1"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["epoch 1", '{"rev": "a"}', ""], {"rev": "a"}),
        (["| a | b |", "| 1 | 2 |"], {"output": "| a | b |\n| 1 | 2 |"}),
        (["[1, 2]"], {"output": "[1, 2]"}),
        ([], {"output": ""}),
    ],
)
def test_what_a_command_hands_on(lines: list[str], expected: dict[str, Any]) -> None:
    from flowsight_dags import outcome

    assert outcome.result(lines) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["error: expected a, got b", "later noise"], "expected a, got b"),
        (["Traceback", "ValueError: x", ""], "ValueError: x"),
        ([], "it said nothing"),
    ],
)
def test_last_words(lines: list[str], expected: str) -> None:
    from flowsight_dags import outcome

    assert outcome.last_words(lines) == expected
