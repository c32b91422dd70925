"""Airflow and MLflow on one machine: settings, refusals, stopping; not the services themselves."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flowsight.errors import FlowsightError, InputError
from flowsight.standalone import services, settings, stack
from flowsight.standalone.settings import Setup

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    """A repository with one commit, and nothing running."""
    root = tmp_path / "repository"
    root.mkdir()
    (root / "file").write_text("x")
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    for command in (["init", "-q", "-b", "trunk"], ["add", "-A"], ["commit", "-qm", "x"]):
        subprocess.run(["git", *who, *command], cwd=root, check=True)
    return Setup(root=root, home=tmp_path / "home", port=18080, mlflow_port=15000)


def test_environment(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("FLOWSIGHT_", "DVC_GLOBAL", "MLFLOW_TRACKING")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FLOWSIGHT_RUNS", "s3://elsewhere")
    env = settings.environment(setup)
    assert env["FLOWSIGHT_RUNS"] == "s3://elsewhere"  # a person's choice stays
    assert (env["FLOWSIGHT_REPO"], env["FLOWSIGHT_REV"]) == (str(setup.root), "trunk")
    assert env["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:15000"
    assert env["AIRFLOW__API__HOST"] == "127.0.0.1" and env["AIRFLOW__API__PORT"] == "18080"
    assert env["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] == "False"
    assert env["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    config = Path(env["DVC_GLOBAL_CONFIG_DIR"], "config").read_text()
    assert f"url = {setup.home / 'dvc-remote'}" in config
    # the same keys and passwords the next time
    assert (
        settings.environment(setup)["AIRFLOW__API_AUTH__JWT_SECRET"]
        == (env["AIRFLOW__API_AUTH__JWT_SECRET"])
    )


def test_secrets_are_the_owners_only(setup: Setup) -> None:
    settings.environment(setup)
    files = list((setup.home / "secrets").iterdir())
    assert len(files) == 2
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)
    known = settings.passwords(setup)
    assert set(known) == {"admin", "flowsight"} and len(set(known.values())) == 2
    assert json.loads(setup.passwords_file.read_text()) == known
    assert known["admin"] not in repr(stack.client(setup))


def test_a_remote_of_the_repository_is_used(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_GLOBAL_CONFIG_DIR", raising=False)
    (setup.root / ".dvc").mkdir()
    text = "[core]\n    remote = s3\n['remote \"s3\"']\n    url = s3://bucket/100%\n"
    (setup.root / ".dvc" / "config").write_text(text)
    assert "DVC_GLOBAL_CONFIG_DIR" not in settings.environment(setup)


def test_no_commit_no_run(tmp_path: Path) -> None:
    root = tmp_path / "empty"
    root.mkdir()
    setup = Setup(root=root, home=tmp_path / "home", port=1, mlflow_port=2)
    with pytest.raises(InputError, match="expected a git repository with a commit"):
        settings.environment(setup)


def test_taken_port_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        flowsight = Path(sys.executable).parent / "flowsight"
        command = [flowsight, "airflow", "--port", port, "--home", str(tmp_path / "home")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"expected port {port} of 127.0.0.1 to be free for Airflow" in done.stderr


def test_one_stack_per_folder(setup: Setup) -> None:
    refused = pytest.raises(InputError, match="another `make airflow`")
    with stack._alone(setup.home), refused, stack._alone(setup.home):
        pass


def test_service_that_ends_is_told_with_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "x.log"
    command = ["bash", "-c", "echo no such table; exit 4"]
    service = services.start("scheduler", command, os.environ, log)
    service.process.wait()
    with pytest.raises(
        FlowsightError, match=r"scheduler ended with exit code 4; its log: .*x\.log"
    ):
        services.check_alive([service])
    assert "no such table" in capsys.readouterr().err


STOPPED = """
import os, sys, time
from pathlib import Path
from flowsight.standalone import services
services.adopt_orphans()
# a service with a child that does not listen, and one whose parent is long gone
script = "(trap '' TERM; sleep 300; sleep 300) & (setsid sleep 300 &) ; sleep 300"
service = services.start("x", ["bash", "-c", script], os.environ, Path(sys.argv[1]))
time.sleep(1)
print(*(p.pid for p in services._running()), flush=True)
if sys.argv[2] == "stop":
    print(services.stop([service], grace_sec=1), flush=True)
else:
    time.sleep(300)
"""


def test_stopping_leaves_nobody(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STOPPED, str(tmp_path / "log"), "stop"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    started, killed = done.stdout.splitlines()
    assert len(started.split()) >= 4
    assert int(killed) >= 1  # the one that did not listen
    assert not [pid for pid in started.split() if psutil.pid_exists(int(pid))]


def test_services_end_when_the_stack_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STOPPED, str(tmp_path / "log"), "wait"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    started = [int(pid) for pid in process.stdout.readline().split()]
    process.kill()
    process.wait()
    end = time.monotonic() + 10
    service = started[0]
    while psutil.pid_exists(service) and psutil.Process(service).status() != "zombie":
        assert time.monotonic() < end, "the service outlived the stack"
        time.sleep(0.05)
    for pid in started[1:]:  # what a real service would have ended itself
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)
