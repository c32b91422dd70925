"""Remote, fragments and drop folder in an object store: no two machines share a disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

Toy = Any  # tests/cluster/conftest.py


@pytest.fixture
def s3(toy: Toy) -> Iterator[dict[str, str]]:
    """Environment of workers that know an S3 server with the bucket `flowsight`."""
    pytest.importorskip("dvc_s3")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    environment = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "FLOWSIGHT_RUNS": "s3://flowsight/runs",
    }
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="flowsight")
    toy.client = client
    toy.config(
        "[core]\n    remote = store\n['remote \"store\"']\n    url = s3://flowsight/dvc\n"
        f"    endpointurl = {url}\n"
    )
    yield environment
    server.stop()


def keys(toy: Toy, prefix: str) -> list[str]:
    listed = toy.client.list_objects_v2(Bucket="flowsight", Prefix=prefix)
    return [entry["Key"] for entry in listed.get("Contents", [])]


@pytest.mark.slow
def test_a_run_through_s3(toy: Toy, s3: dict[str, str]) -> None:
    workers = [toy.worker("a", **s3), toy.worker("b", **s3)]
    rev = workers[0].answer("prepare", "--run-id", "r1")["rev"]
    (toy.trap / "raw").write_text("sleep 4")
    command = ["run-stage", "raw", "--rev", rev, "--run-id", "r1"]
    processes = [worker.start(*command) for worker in workers]
    outs = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outs
    assert toy.executed() == ["raw"]
    for i, name in enumerate(toy.stages[1:]):
        assert workers[i % 2].stage(name, rev, "r1")["outcome"] == "ran"
    assert toy.executed() == toy.stages
    done = workers[0].answer("gather", "--rev", rev, "--run-id", "r1")
    assert done["stages"] == len(toy.stages)
    assert keys(toy, "runs/") == sorted(f"runs/r1/{name}.yaml" for name in toy.stages)
    clone = toy.root / "one"
    toy.run("git", "clone", "-q", toy.repo, clone, cwd=toy.root)
    toy.run("dvc", "repro", "-q", cwd=clone)
    assert toy.in_repo("dvc.lock", "runs/r1") + "\n" == (clone / "dvc.lock").read_text()


def test_a_drop_folder_in_s3(toy: Toy, s3: dict[str, str], tmp_path: Path) -> None:
    import cv2
    import numpy as np

    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 24))
    writer.write(np.zeros((24, 32, 3), np.uint8))
    writer.release()
    for name, content in {"Walk/a.avi": path.read_bytes(), "Walk/b.avi": b"no video"}.items():
        toy.client.put_object(Bucket="flowsight", Key=f"drop/{name}", Body=content)
    worker = toy.worker("a", **s3)
    answer = worker.answer("ingest", "--drop", "s3://flowsight/drop", "--dataset", "mine")
    assert answer["added"] == ["Walk/a.avi"]
    assert list(answer["quarantined"]) == ["Walk/b.avi"]
    assert keys(toy, "drop/") == [
        "drop/quarantine/Walk/b.avi",
        "drop/quarantine/Walk/b.avi.reason.txt",
    ]
    assert "mine" in toy.in_repo("data/raw/mine.dvc", "main")


def test_a_store_that_is_away_is_worth_a_retry(toy: Toy, s3: dict[str, str]) -> None:
    rev = toy.worker("a", **s3).answer("prepare", "--run-id", "r1")["rev"]
    away = {**s3, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    code, _, err = toy.worker("b", **away).call("run-stage", "raw", "--rev", rev, "--run-id", "r1")
    assert code == 75, err
    assert "cannot reach the store of runs" in err.splitlines()[-1]
