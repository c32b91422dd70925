"""What `make airflow` starts, for real: a run of the workers' commands, seen in a browser.

The pipeline is a small one (five stages that write a line each), in a git repository and a DVC
remote of its own; Airflow, MLflow, the DAG files and the commands are the real ones. Only `promote`
is answered by a script, for there is no model to promote.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from flowsight.standalone import rest, stack
from flowsight.standalone.settings import Setup

ROOT = Path(__file__).resolve().parents[2]
READY_SEC = 240  # 79 s were seen while four other jobs kept the two cores busy

PIPELINE = """
stages:
  sample:
    cmd: mkdir -p data/raw/sample && echo ${seed} > data/raw/sample/x
    params: [seed]
    outs: [data/raw/sample]
    meta: {group: data, gpus: 0, memory_gb: 1, timeout_min: 5, queue: cpu, retries: 1}
  frames:
    foreach: ${shards}
    do:
      cmd: mkdir -p data/frames/${item} && cp data/raw/sample/x data/frames/${item}/x
      deps: [data/raw/sample]
      outs: ['data/frames/${item}']
      meta: {group: data, gpus: 0, memory_gb: 1, timeout_min: 5, queue: cpu, retries: 1}
  train:
    foreach: ${instances.train}
    do:
      cmd: mkdir -p checkpoints/${key} && cat data/frames/*/x > checkpoints/${key}/model
      deps: [data/frames]
      outs: ['checkpoints/${key}']
      meta: {group: "${item.system}", gpus: 1, memory_gb: 1, timeout_min: 5, queue: gpu, retries: 1}
  report:
    cmd: mkdir -p results && cat checkpoints/*/model > results/report.txt
    deps: [checkpoints]
    outs: [results/report.txt]
    meta: {group: report, gpus: 0, memory_gb: 1, timeout_min: 5, queue: cpu, retries: 1}
"""

COMMAND = """#!/bin/bash
[ "$1" != at ] || shift 2
[ "$1" = promote ] || exec {flowsight} "$@"
echo "$@" >> {log}
echo "| model | accuracy |"; echo "| new | 0.91 |"; echo "| in service | 0.88 |"
"""

pytestmark = [pytest.mark.slow, pytest.mark.pipeline, pytest.mark.timeout(1500)]


def git(root: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    command = ["git", *who, *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The DAGs and parameters of this repository over the small pipeline."""
    root = tmp_path_factory.mktemp("stack") / "repository"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("dags", "conf", "src"):
        shutil.copytree(ROOT / name, root / name, ignore=ignore)
    for name in ("params.yaml", ".gitignore", ".dvc/config", "pyproject.toml"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    (root / "dvc.yaml").write_text(PIPELINE)
    git(root, "init", "-q", "-b", "trunk")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "a small pipeline")
    return root


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs; one that ended and that nobody asked after does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def running(repository: Path) -> Iterator[Setup]:
    """The stack, ready; stopped afterwards, with nothing left of it."""
    home = repository.parent / "home"
    setup = Setup(root=repository, home=home, port=free_port(), mlflow_port=free_port())
    command = [str(Path(sys.executable).parent / "flowsight"), "airflow", "--home", str(home)]
    command += ["--port", str(setup.port), "--mlflow-port", str(setup.mlflow_port)]
    script = home.parent / "command"
    script.write_text(COMMAND.format(flowsight=command[0], log=home.parent / "promotions"))
    script.chmod(0o755)
    own = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    env = {**own, "FLOWSIGHT_COMMAND": str(script), "FLOWSIGHT_RETRY_DELAY_SEC": "1"}
    begin = time.monotonic()
    process = subprocess.Popen(command, cwd=repository, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready after"), line
        assert time.monotonic() - begin < READY_SEC
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 5
        yield setup
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    assert code == 0
    assert not [one for one in family if is_alive(one)]


@pytest.fixture(scope="module")
def finished(running: Setup) -> str:
    """A run, triggered by REST, that came to its end."""
    airflow = stack.client(running)
    airflow.unpause("promote")  # it waits for results
    airflow.unpause("retrain")
    run_id = airflow.trigger("retrain", {"seed": 7, "recipe": "smoke"})
    end = time.monotonic() + 900
    while (state := airflow.get(f"/dags/retrain/dagRuns/{run_id}")["state"]) != "success":
        assert state != "failed" and time.monotonic() < end, failures(airflow, run_id)
        time.sleep(2)
    return run_id


def failures(airflow: rest.Airflow, run_id: str) -> Any:
    tasks = airflow.get(f"/dags/retrain/dagRuns/{run_id}/taskInstances?limit=100")
    return {task["task_id"]: task["state"] for task in tasks["task_instances"]}


def test_the_run_is_in_git_and_in_the_remote(running: Setup, finished: str) -> None:
    branches = git(running.root, "branch", "--list", "runs/*").split()
    assert len(branches) == 1 and branches[0].startswith("runs/manual-20")
    lock = git(running.root, "show", f"{branches[0]}:dvc.lock")
    assert "train@spatial-1" in lock and "report" in lock
    clone = running.home / "clone"
    git(running.home, "clone", "-q", "-b", branches[0], str(running.root), str(clone))
    config = running.home / "dvc"
    subprocess.run(
        ["env", f"DVC_GLOBAL_CONFIG_DIR={config}", "dvc", "pull", "-q", "report"],
        cwd=clone,
        check=True,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(clone)},
    )
    assert (clone / "results/report.txt").read_text() == "7\n" * 8  # the form's seed


def test_the_run_says_where_its_results_are(running: Setup, finished: str) -> None:
    airflow = stack.client(running)
    run = airflow.get(f"/dags/retrain/dagRuns/{finished}")
    assert "git checkout runs/manual-20" in run["note"]
    tasks = airflow.get(f"/dags/retrain/dagRuns/{finished}/taskInstances?limit=100")
    shown = {task["rendered_map_index"] for task in tasks["task_instances"]}
    assert {"frames@0", "frames@3", "train@spatial-1", "train@temporal-1"} <= shown
    pools = {task["task_id"]: task["pool"] for task in tasks["task_instances"]}
    assert pools["train-two_stream"] == "gpu" and pools["frames"] == "default_pool"


def test_wrong_answers_and_strangers_are_refused(running: Setup) -> None:
    airflow = stack.client(running)
    for form in ({"recipe": "huge"}, {"overrides": "a b"}, {"seed": -1}, {"systems": ["x"]}):
        with pytest.raises(urllib.error.HTTPError) as error:
            airflow.trigger("retrain", form)
        assert error.value.code == 400
    stranger = rest.Airflow(running.airflow_url, "admin", "wrong")
    for request in (lambda: stranger.token, lambda: rest.ask(f"{stranger.url}/api/v2/dags")):
        with pytest.raises(urllib.error.HTTPError) as error:
            request()
        assert error.value.code == 401


def test_a_person_sees_the_run(running: Setup, finished: str, chromium_path: str) -> None:
    from playwright.sync_api import sync_playwright

    login = stack.client(running)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=chromium_path, args=["--no-sandbox", "--disable-gpu"]
        )
        page = chromium.new_page(viewport={"width": 1500, "height": 900})
        page.goto(running.airflow_url)
        page.fill("input[name=username]", login.user)
        page.fill("input[name=password]", login.password)
        page.click("button[type=submit]")
        page.wait_for_selector("text=Dags", timeout=60_000)
        page.goto(f"{running.airflow_url}/dags/retrain/runs/{finished}")
        page.wait_for_selector("text=publish", timeout=60_000)
        assert page.get_by_text("Success").count() > 0
        assert page.get_by_text("git checkout runs/manual-20").count() > 0
        page.get_by_label("Show Graph").first.click()
        page.wait_for_selector(".react-flow__node", timeout=60_000)
        names = page.locator(".react-flow__node").all_inner_texts()
        assert any("prepare" in name for name in names), names
        chromium.close()


def test_a_promotion_waits_for_a_person(running: Setup, finished: str) -> None:
    airflow = stack.client(running)
    log = running.home.parent / "promotions"
    end = time.monotonic() + 300
    while not (asked := waiting(airflow)):
        assert time.monotonic() < end, "nobody was asked"
        time.sleep(1)
    assert asked["subject"] == "Put the new version of two_stream into service?"
    assert "| new | 0.91 |" in asked["body"]
    assert log.read_text() == "promote two_stream --dry-run\n"  # not yet
    task = asked["task_instance"]
    path = f"dags/promote/dagRuns/{task['dag_run_id']}/taskInstances/{task['task_id']}/-1"
    answer = {"chosen_options": ["Approve"], "params_input": {}}
    url = f"{running.airflow_url}/api/v2/{path}/hitlDetails"
    rest.ask(url, answer, token=airflow.token, method="PATCH")
    while airflow.get(f"/dags/promote/dagRuns/{task['dag_run_id']}")["state"] != "success":
        assert time.monotonic() < end, "the answer changed nothing"
        time.sleep(1)
    assert log.read_text().splitlines()[1] == "promote two_stream"


def waiting(airflow: rest.Airflow) -> Any:
    """The question that waits for an answer, if there is one."""
    found = airflow.get("/dags/promote/dagRuns/~/hitlDetails?response_received=false")
    return next(iter(found["hitl_details"]), None)
