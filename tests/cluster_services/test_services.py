"""The services themselves: a small DAG goes through two workers, one of which is killed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cluster_processes import Services, until
from cluster_topology import Cluster

pytestmark = pytest.mark.slow

DAG = """
from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import dag

COMMON = {"retries": 2, "retry_delay": timedelta(seconds=1), "do_xcom_push": False}


@dag(schedule=None, catchup=False)
def small():
    first = BashOperator.partial(task_id="first", **COMMON).expand(
        bash_command=[f"sleep 2; echo {i} $HOME >> $OUT_FILE" for i in range(2)]
    )
    on_gpu = BashOperator(
        task_id="on_gpu",
        queue="gpu",
        bash_command="echo started $HOME >> $OUT_FILE; [ -e $GO_FILE ] || sleep 600",
        **COMMON,
    )
    first >> on_gpu


small()
"""


@pytest.fixture(scope="module")
def cluster(services: Services) -> Cluster:
    folder = services.folder
    (folder / "dags").mkdir()
    (folder / "dags" / "small.py").write_text(DAG)
    extra = {"OUT_FILE": str(folder / "out.txt"), "GO_FILE": str(folder / "go")}
    cluster = Cluster(services, folder, folder / "dags", folder / "none.git", extra)
    start = time.monotonic()
    cluster.start_all({"one": "default,cpu,gpu", "two": "default,cpu,gpu"})
    print(f"cluster up in {time.monotonic() - start:.0f} s")
    return cluster


def test_a_task_of_a_killed_worker_goes_on_elsewhere(cluster: Cluster) -> None:
    start = time.monotonic()
    until(lambda: cluster.unpause("small"), "the DAG to be parsed", timeout_sec=90)
    print(f"parsed {time.monotonic() - start:.0f} s")
    cluster.trigger("small", "once", {})
    out = cluster.folder / "out.txt"
    until(lambda: out.exists() and "started" in out.read_text(), "the last task", timeout_sec=120)
    print(f"last task {time.monotonic() - start:.0f} s")
    home = out.read_text().splitlines()[-1].split()[1]
    victim = cluster.named[Path(home).name]
    killed = victim.kill_tree()
    assert len(killed) >= 4  # worker, pool process, task, its bash
    (cluster.folder / "go").touch()
    until(
        lambda: cluster.run_state("small", "once") in ("success", "failed"),
        "the run to end",
        timeout_sec=180,
    )
    print(f"done {time.monotonic() - start:.0f} s", out.read_text())
    assert cluster.run_state("small", "once") == "success", cluster.task_log("once", "on_gpu")
    homes = [line.split()[1] for line in out.read_text().splitlines() if "started" in line]
    assert len(homes) == 2
    assert homes[0] != homes[1]
