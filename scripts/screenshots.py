"""Make docs/images/airflow-*.png: a real run of the pipeline in a scratch clone, seen in a browser.

    python scripts/screenshots.py [--keep | --again FOLDER]

Needs chromium. Starts what `make airflow` starts, on free ports, from a clone of the working tree;
retrains with the smoke recipe on a few clips (several minutes), and takes pictures of the pages.
`--again` takes them of the last run in a folder that `--keep` left.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowsight.standalone import stack
from flowsight.standalone.rest import Airflow
from flowsight.standalone.settings import Setup

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
SIZE = {"width": 1500, "height": 900}
WIDE = {"width": 2200, "height": 900}
TALL = {"width": 1200, "height": 1500}
FORM = {
    "recipe": "smoke",
    "overrides": "\n".join(
        [
            "sample.num_groups=3",
            "sample.num_test_groups=1",
            "sample.clips_per_group=1",
            "dataset.max_quarantined=0.2",
        ]
    ),
}
BROWSER = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the scratch clone")
    parser.add_argument("--again", type=Path, help="a folder that --keep left")
    args = parser.parse_args()
    work = args.again or Path(tempfile.mkdtemp(prefix="flowsight-screenshots-"))
    try:
        if not args.again:
            clone(work / "flowsight")
        with running(work / "flowsight", work / "airflow") as setup:
            airflow = stack.client(setup)
            run_id = last_run(airflow) if args.again else retrain(airflow)
            IMAGES.mkdir(parents=True, exist_ok=True)
            photograph(airflow, run_id)
    finally:
        if args.keep or args.again:
            print(f"kept {work}")
        else:
            shutil.rmtree(work)


def last_run(airflow: Airflow) -> str:
    """The run that is there already."""
    runs = airflow.get("/dags/retrain/dagRuns?order_by=-run_after&state=success")["dag_runs"]
    return str(runs[0]["dag_run_id"])


def clone(target: Path) -> None:
    """The working tree as the first commit of a repository of its own."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in names.splitlines():
        if (ROOT / name).is_file() and name != "dvc.lock":
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    who = ("-c", "user.name=flowsight", "-c", "user.email=flowsight@localhost")
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "start"]):
        subprocess.run(["git", *who, *command], cwd=target, check=True)


@contextmanager
def running(root: Path, home: Path) -> Iterator[Setup]:
    """What `make airflow` starts, on free ports, as a process of its own; ready when yielded."""
    ports = [free_port(), free_port()]
    setup = Setup(root=root, home=home, port=ports[0], mlflow_port=ports[1])
    command = [str(Path(sys.executable).parent / "flowsight"), "airflow", "--home", str(home)]
    command += ["--port", str(ports[0]), "--mlflow-port", str(ports[1])]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("ready"):
            raise SystemExit(f"the stack did not start: {line or 'it ended'}")
        print(line.strip(), file=sys.stderr)
        yield setup
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def retrain(airflow: Airflow, limit_min: float = 60) -> str:
    """Trigger a run and wait for its success."""
    airflow.unpause("retrain")
    run_id = airflow.trigger("retrain", FORM)
    path = f"/dags/retrain/dagRuns/{run_id}"
    end = time.monotonic() + limit_min * 60
    begin = time.monotonic()
    while time.monotonic() < end:
        state = airflow.get(path)["state"]
        if state in ("success", "failed"):
            print(f"retrain: {state} after {time.monotonic() - begin:.0f} s", file=sys.stderr)
            if state == "failed":
                show_failures(airflow, path)
            return run_id
        time.sleep(5)
    raise SystemExit(f"the run did not finish within {limit_min} minutes")


def show_failures(airflow: Airflow, path: str) -> None:
    for task in airflow.get(f"{path}/taskInstances?limit=200")["task_instances"]:
        if task["state"] == "failed":
            print(f"failed: {task['task_id']}[{task['map_index']}]", file=sys.stderr)


def photograph(airflow: Airflow, run_id: str) -> None:
    """The pages of the documentation."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("chromium-browser"),
            args=list(BROWSER),
        )
        page = chromium.new_page(viewport=SIZE, color_scheme="light")
        log_in(page, airflow)
        shoot(page, f"{airflow.url}/dags", "airflow-dags", "housekeeping")
        shoot(page, f"{airflow.url}/dags/retrain/runs/{run_id}", "airflow-run", "prepare")
        shoot_graph(page, f"{airflow.url}/dags/retrain/runs/{run_id}", "airflow-graph")
        shoot_form(page, f"{airflow.url}/dags/retrain", "airflow-form")
        chromium.close()


def log_in(page: Any, airflow: Airflow) -> None:
    """The log-in page, as a person fills it in."""
    page.goto(airflow.url)
    page.fill("input[name=username]", airflow.user)
    page.fill("input[name=password]", airflow.password)
    page.click("button[type=submit]")
    page.wait_for_selector("text=Dags", timeout=60_000)


def shoot(page: Any, url: str, name: str, awaited: str) -> None:
    page.goto(url)
    page.wait_for_selector(f"text={awaited}", timeout=60_000)
    save(page, name)


def shoot_graph(page: Any, url: str, name: str) -> None:
    """The graph with its boxes open and the details beside it folded away."""
    page.set_viewport_size(WIDE)
    page.goto(url)
    page.get_by_label("Graph").first.click()
    page.wait_for_selector(".react-flow__node", timeout=60_000)
    page.get_by_label("Expand all task groups").first.click()
    page.get_by_label("Collapse Details Panel").first.click()
    page.wait_for_timeout(4000)
    page.get_by_label("Fit View").first.click()
    save(page, name)


def shoot_form(page: Any, url: str, name: str) -> None:
    page.set_viewport_size(TALL)
    page.goto(url)
    page.get_by_role("button", name="Trigger").first.click()
    page.wait_for_selector("text=Data set", timeout=60_000)
    save(page, name)


def save(page: Any, name: str) -> None:
    page.wait_for_timeout(4000)  # the pages fill themselves in several steps
    path = IMAGES / f"{name}.png"
    page.screenshot(path=str(path))
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB", file=sys.stderr)


if __name__ == "__main__":
    main()
