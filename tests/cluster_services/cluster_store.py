"""An S3 server in place of the cluster's directories of objects and fragments."""

from __future__ import annotations

import socket
from typing import Any

import boto3
from cluster_processes import free_port
from cluster_topology import BIN, Cluster

BUCKET = "flowsight"


def move_to_s3(cluster: Cluster) -> None:
    """Start an S3 server and, so that they know it, the workers again."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [BIN / "moto_server", "-H", "127.0.0.1", "-p", str(port)]
    env = cluster.base_env(cluster.folder / "homes" / "s3")
    cluster.services.start("s3", command, env).wait_healthy(lambda: _listens(port), timeout_sec=60)
    cluster.store = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "FLOWSIGHT_RUNS": f"s3://{BUCKET}/runs",
    }
    _client(cluster).create_bucket(Bucket=BUCKET)
    cluster.set_remote(f"url = s3://{BUCKET}/dvc\n    endpointurl = {url}")
    workers = set(cluster.workers)
    for name in workers:
        cluster.named[name].stop()
        cluster.start_worker(name, cluster.workers[name])
    cluster.wait_workers(workers)


def keys(cluster: Cluster, prefix: str) -> list[str]:
    """Names of the bucket's objects."""
    pages = _client(cluster).get_paginator("list_objects_v2")
    listed = pages.paginate(Bucket=BUCKET, Prefix=prefix)
    return [entry["Key"] for page in listed for entry in page.get("Contents", [])]


def _client(cluster: Cluster) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=cluster.store["AWS_ENDPOINT_URL"],
        aws_access_key_id=cluster.store["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=cluster.store["AWS_SECRET_ACCESS_KEY"],
        region_name=cluster.store["AWS_DEFAULT_REGION"],
    )


def _listens(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
