"""`retrain` on the real services, through everything that can go wrong, against one machine.

Two Celery workers that share nothing but a DVC remote, a folder of fragments and one of resume
states run the pipeline. Meanwhile one is killed in the middle of optical flow and loses its disk,
one is killed in the middle of a training, the scheduler dies, MLflow is away for a minute, and the
run is triggered a second time. It must end green, with the bytes of `dvc repro` on one machine, and
no stage that was published may have been computed again.

A second run (`make test-services`) has the same settings, nothing goes wrong in it, and an S3
server holds what the workers share. It must end with the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import threading
import time
import urllib.error
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from cluster_browser import look_at_run
from cluster_processes import Service, Services, until
from cluster_store import keys, move_to_s3
from cluster_story import (
    ENDED,
    RUN,
    Visible,
    bare_repository,
    catch_in_the_middle,
    checkout,
    events,
    failures,
    git,
    kill_worker,
    restart_scheduler,
    stage_of,
    start_elsewhere,
    wait_until_running,
)
from cluster_topology import BIN, Cluster

from flowsight.pipeline import dvc_yaml

pytestmark = [
    pytest.mark.workers,
    pytest.mark.slow,
    pytest.mark.pipeline,
    pytest.mark.timeout(2400),
]

# 24 small clips in two shards; the three broken files are a larger share of so few. TV-L1 and three
# long epochs leave time to be killed in
OVERRIDES = [
    "shards=[0,1]",
    "sample.num_groups=3",
    "sample.num_test_groups=1",
    "sample.clips_per_group=1",
    "dataset.max_quarantined=0.2",
    "flow.method=tvl1",
    "systems.two_stream.rows.spatial.train.epochs=3",
    "systems.two_stream.rows.spatial.train.samples_per_epoch=8",
]
CONF = {
    "dataset": "sample",
    "recipe": "smoke",
    "systems": ["two_stream"],  # the others' nodes are there and have no instances
    "overrides": "\n".join(OVERRIDES),
}
CALM = "calm"
MLFLOW_AWAY_SEC = 60


# the cluster --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(services: Services) -> Cluster:
    """Two workers, each on a machine of its own as far as files go."""
    folder = services.folder
    extra = {
        "PYTHONPATH": str(Path(__file__).parent / "counting"),
        "FLOWSIGHT_TEST_COUNT": str(folder / "count.jsonl"),
    }
    (folder / "count.jsonl").touch()
    # a model of three short epochs is no good; here the gate shall let it in
    repo = bare_repository(folder, {"min_measure: 0.5": "min_measure: 0.0"})
    cluster = Cluster(services=services, folder=folder, repo=repo, extra=extra)
    cluster.start_all({"one": "default,cpu,gpu", "two": "default,cpu,gpu"})
    for dag in ("retrain", "promote"):
        until(lambda dag=dag: cluster.unpause(dag), f"{dag} to be parsed", timeout_sec=300)
    return cluster


# the run with its faults --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def story(cluster: Cluster) -> Iterator[dict[str, Any]]:
    """The run, with its faults; yields what was seen."""
    seen: dict[str, Any] = {"killed": [], "started": time.monotonic()}
    visible = Visible(cluster)
    watcher = threading.Thread(target=visible.watch, daemon=True)
    watcher.start()
    try:
        cluster.trigger("retrain", RUN, CONF)
        go_through_faults(cluster, seen)
        until(
            lambda: cluster.run_state("retrain", RUN) in ENDED,
            "the run to end",
            timeout_sec=1200,
            every_sec=1,
        )
    finally:
        visible.over.set()
        watcher.join()
    seen["seconds"] = time.monotonic() - seen["started"]
    print(f"\nrun with faults: {seen['seconds']:.0f} s; killed {seen['killed']}")
    visible.look()
    yield {**seen, "visible": visible, "state": cluster.run_state("retrain", RUN)}


def go_through_faults(cluster: Cluster, seen: dict[str, Any]) -> None:
    with pytest.raises(urllib.error.HTTPError, match="409"):
        cluster.trigger("retrain", RUN, CONF)  # the same run again

    wait_until_running(cluster, "sample")
    seen["alone"] = start_on_one_machine(cluster)  # meanwhile, where a core has nothing to do

    event = catch_in_the_middle(cluster, "flow")
    kill_worker(cluster, event, lose_disk=True)
    seen["killed"].append(event)
    restart_scheduler(cluster)

    wait_until_running(cluster, "splits")
    # what was parsed is enough; after the first lost worker it parses without end (docs/cluster.md)
    cluster.named["dag-processor"].stop()
    cluster.named["mlflow"].stop()
    away = time.monotonic()
    event = catch_in_the_middle(cluster, "train")
    kill_worker(cluster, event, lose_disk=False)
    seen["killed"].append(event)

    # somebody runs a stage of this run by hand while a worker is at it, and takes some time
    event = wait_until_running(cluster, "explain")
    slow = psutil.Process(event["pid"])
    slow.suspend()
    third = start_elsewhere(cluster, stage_of(checkout(cluster), event))
    time.sleep(max(0.0, MLFLOW_AWAY_SEC - (time.monotonic() - away)))
    cluster.start_mlflow()
    cluster.wait_mlflow()
    slow.resume()
    assert third.wait(300) == 0, third.tail()
    seen["third"] = third


def start_on_one_machine(cluster: Cluster) -> Service:
    """`dvc repro` at the run's parameters, with an empty cache of its own, out of the way."""
    root = checkout(cluster)
    env = {**cluster.base_env(cluster.folder / "homes" / "alone"), "FLOWSIGHT_TRACKING": "off"}
    env.pop("PYTHONPATH")
    env["DVC_SITE_CACHE_DIR"] = str(cluster.folder / "homes/alone/dvc-site")
    shutil.copy(compiled_engine(), root / "src/flowsight/flow")
    command = ["nice", "-n", "10", BIN / "dvc", "repro"]
    return cluster.services.start("one-machine", command, env, cwd=root)


# what must hold -----------------------------------------------------------------------------------


def test_the_run_ends_green(cluster: Cluster, story: dict[str, Any]) -> None:
    assert story["state"] == "success", failures(cluster)
    assert len(story["killed"]) == 2
    tasks = cluster.tasks("retrain", RUN)
    assert {task["state"] for task in tasks} <= {"success", "skipped"}


def test_nothing_published_is_computed_twice(cluster: Cluster, story: dict[str, Any]) -> None:
    """Each command once; once more for the two that were killed."""
    root = checkout(cluster)
    started = [event for event in events(cluster) if event["event"] == "start"]
    counted = Counter(stage_of(root, event) for event in started)
    expected = Counter(dict.fromkeys(dvc_yaml.load(root), 1))
    expected.update(stage_of(root, event) for event in story["killed"])
    assert counted == expected
    ended = Counter(stage_of(root, e) for e in events(cluster) if e["event"] == "end")
    assert ended == Counter(dict.fromkeys(dvc_yaml.load(root), 1))
    homes = {Path(event["home"]).name for event in started}
    assert homes == {"one", "two"}, "both workers must have worked, the third not"


def test_a_stage_run_by_hand_meanwhile_is_not_computed(story: dict[str, Any]) -> None:
    said = story["third"].tail()
    assert "another host is at it; waiting" in said
    assert json.loads(said.splitlines()[-1])["outcome"] == "unchanged"


def test_no_half_output_was_ever_visible(cluster: Cluster, story: dict[str, Any]) -> None:
    visible: Visible = story["visible"]
    assert visible.wrong == []
    assert visible.num_fragments == len(dvc_yaml.load(checkout(cluster)))
    assert len(visible.checked) > visible.num_fragments


def test_a_training_goes_on_and_is_recorded_when_mlflow_is_back(
    cluster: Cluster, story: dict[str, Any]
) -> None:
    cluster.wait_mlflow()
    runs = cluster.mlflow_runs()
    finished = {run["info"]["run_name"] for run in runs if run["info"]["status"] == "FINISHED"}
    assert {"spatial_attended-1", "temporal_attended-1"} <= {n.split("@")[-1] for n in finished}


def test_same_bytes_as_on_one_machine(cluster: Cluster, story: dict[str, Any]) -> None:
    """`dvc repro` at the same parameters, with an empty cache of its own."""
    root, alone = checkout(cluster), story["alone"]
    assert alone.wait(900) == 0, alone.tail()
    gathered = git("show", f"runs/{RUN}:dvc.lock", at=cluster.repo)
    assert (root / "dvc.lock").read_text() == gathered
    fetched = fetch_results(cluster)
    ours, theirs = hashes(root / "results"), hashes(fetched / "results")
    assert len(ours) > 5
    assert theirs == ours


def test_the_new_model_goes_into_service(cluster: Cluster, story: dict[str, Any]) -> None:
    """`retrain` has registered it; `promote` heard of the results, compared and let it in."""
    until(
        lambda: promotions(cluster) not in ([], ["running"], ["queued"]), "promote", timeout_sec=300
    )
    assert promotions(cluster) == ["success"]
    (run,) = cluster.runs("promote")
    tasks = {t["task_id"]: t["state"] for t in cluster.tasks("promote", run["dag_run_id"])}
    assert tasks["two_stream.compare"] == tasks["two_stream.promote"] == "success"
    alias = "registered-models/alias?name=two_stream&alias=champion"
    champion = cluster.ask_mlflow(alias)["model_version"]
    assert champion["version"] == "1"
    tags = {tag["key"]: tag["value"] for tag in champion["tags"]}
    assert tags["git_commit"] == git("rev-parse", f"runs/{RUN}", at=cluster.repo).strip()


def test_a_person_sees_the_run(cluster: Cluster, story: dict[str, Any], chromium_path: str) -> None:
    """In Airflow's pages: that it ended well, where its results are, the graph of its stages."""
    text, nodes = look_at_run(cluster, RUN, chromium_path)
    assert "Success" in text and f"git checkout runs/{RUN}" in text
    assert all(group in nodes for group in ("data", "two_stream", "page")), nodes


# the calm run, for its minutes in `make test-services` only ---------------------------------------
# (`tests/cluster/test_s3.py` has a smaller pipeline over the same S3 server)


@pytest.fixture(scope="module")
def calm(cluster: Cluster, story: dict[str, Any]) -> str:
    """A run with the same settings over an S3 server; its id."""
    num_before = len(events(cluster))
    move_to_s3(cluster)
    begin = time.monotonic()
    cluster.trigger("retrain", CALM, CONF)
    until(
        lambda: cluster.run_state("retrain", CALM) in ENDED,
        "the calm run to end",
        timeout_sec=900,
        every_sec=1,
    )
    num_computed = len([e for e in events(cluster)[num_before:] if e["event"] == "start"])
    print(f"\ncalm run: {time.monotonic() - begin:.0f} s; {num_computed} commands")
    assert cluster.run_state("retrain", CALM) == "success", failures(cluster, CALM)
    return CALM


@pytest.mark.services
def test_the_same_settings_give_the_same_bytes(cluster: Cluster, calm: str) -> None:
    locks = [git("show", f"runs/{run}:dvc.lock", at=cluster.repo) for run in (RUN, calm)]
    assert locks[0] == locks[1]
    assert len(keys(cluster, f"runs/{calm}/")) >= len(dvc_yaml.load(checkout(cluster)))
    fetched = hashes(fetch_results(cluster, calm) / "results")
    assert len(fetched) > 5
    assert fetched == hashes(checkout(cluster) / "results")


@pytest.mark.services
def test_a_model_that_is_known_is_not_registered_again(cluster: Cluster, calm: str) -> None:
    path = "model-versions/search?filter=name%3D%27two_stream%27"
    found = cluster.ask_mlflow(path)["model_versions"]
    assert [version["version"] for version in found] == ["1"]


def promotions(cluster: Cluster) -> list[str]:
    """States of the runs of `promote`."""
    return [run["state"] for run in cluster.runs("promote")]


def compiled_engine() -> Path:
    from flowsight.flow import tvl1_library

    (found,) = Path(tvl1_library.__file__).parent.glob("_tvl1*.so")
    return found


def fetch_results(cluster: Cluster, run: str = RUN) -> Path:
    """The run's results as anybody fetches them: a clone of its branch and `dvc pull`."""
    folder = cluster.folder / "fetched" / run
    folder.parent.mkdir(exist_ok=True)
    git("clone", "-q", "-b", f"runs/{run}", str(cluster.repo), str(folder), at=cluster.folder)
    env = cluster.worker_env(f"reader-{run}")
    pull = [BIN / "dvc", "pull", "-q", "evaluate@two_stream", "page"]
    subprocess.run(pull, cwd=folder, env=env, check=True)
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".gitignore"
    }


def test_nothing_outlives_the_cluster(tmp_path: Path) -> None:
    """A process in a session of its own below a service goes with it."""
    services = Services(tmp_path)
    code = (
        "import subprocess, time;"
        "subprocess.Popen(['sleep', '600'], start_new_session=True); time.sleep(600)"
    )
    service = services.start("parent", [BIN / "python", "-c", code], dict(os.environ))
    until(lambda: bool(psutil.Process(service.pid).children()), "the child", timeout_sec=30)
    (child,) = psutil.Process(service.pid).children()
    assert services.close() == [child.pid]
    assert not psutil.pid_exists(child.pid) or child.status() == psutil.STATUS_ZOMBIE
