"""The Kubernetes runner, without a cluster: the pod that would be asked for, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from .conftest import ROOT, load_dags

CONFIG = """
image: registry.example/flowsight:1.0
namespace: training
service_account: worker
image_pull_secrets: [registry]
env: {FLOWSIGHT_REPO: https://git.example/flowsight.git, FLOWSIGHT_RUNS: s3://runs/all}
secrets: [worker-secrets]
volumes:
  - {name: scratch, claim: scratch-claim, mount: /scratch}
queues:
  gpu:
    labels: {pool: gpu}
    tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]
"""
KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: https://127.0.0.1:1}}]
users: [{name: u, user: {}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""


@pytest.fixture
def pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The real DAGs with the Kubernetes runner."""
    (tmp_path / "pods.yaml").write_text(CONFIG)
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    monkeypatch.setenv("FLOWSIGHT_RUNNER", "kubernetes")
    monkeypatch.setenv("FLOWSIGHT_POD_CONFIG", str(tmp_path / "pods.yaml"))
    return load_dags(ROOT)


def requested(task: Any, tmp_path: Path) -> dict[str, Any]:
    """The pod a task asks for, as Kubernetes gets it."""
    from kubernetes.client import ApiClient

    task.config_file = str(tmp_path / "kubeconfig")
    return ApiClient().sanitize_for_serialization(task.build_pod_request_obj())


def test_pod_of_a_training(pods: dict[str, Any], tmp_path: Path) -> None:
    mapped = pods["retrain"].get_task("train-two_stream")
    assert (mapped.pool, mapped.pool_slots, mapped.queue) == ("gpu", 1, "default")
    arguments = ["run-stage", "train@spatial-1", "--rev", "abc", "--run-id", "r1"]
    spec = requested(mapped.unmap({"arguments": arguments}), tmp_path)
    assert spec["metadata"]["namespace"] == "training"
    body = spec["spec"]
    (container,) = body["containers"]
    assert container["image"] == "registry.example/flowsight:1.0"
    assert container["command"] == ["flowsight"] and container["args"] == arguments
    assert container["resources"] == {
        "requests": {"memory": "16384Mi"},
        "limits": {"memory": "16384Mi", "nvidia.com/gpu": "1"},
    }
    assert {"name": "FLOWSIGHT_RUNS", "value": "s3://runs/all"} in container["env"]
    # secrets by reference only
    assert container["envFrom"] == [{"secretRef": {"name": "worker-secrets"}}]
    assert {"mountPath": "/scratch", "name": "scratch", "readOnly": False} in container[
        "volumeMounts"
    ]
    claim = {"name": "scratch", "persistentVolumeClaim": {"claimName": "scratch-claim"}}
    assert claim in body["volumes"]
    assert body["nodeSelector"] == {"pool": "gpu"}
    assert body["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert body["serviceAccountName"] == "worker"
    assert body["imagePullSecrets"] == [{"name": "registry"}]
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_pod_without_a_gpu(pods: dict[str, Any], tmp_path: Path) -> None:
    spec = requested(pods["retrain"].get_task("sample"), tmp_path)["spec"]
    assert spec["containers"][0]["resources"]["limits"] == {"memory": "2048Mi"}
    assert not spec.get("nodeSelector")


def test_pod_hands_on_what_prepare_prints(pods: dict[str, Any], tmp_path: Path) -> None:
    task = pods["retrain"].get_task("prepare")
    task.arguments = ["prepare", "--run-id", "r1"]
    body = requested(task, tmp_path)["spec"]
    container, side = body["containers"]
    assert side["name"] == "airflow-xcom-sidecar"
    # the very command line, with the folder of the side container moved
    script = [part.replace("/airflow/xcom", str(tmp_path)) for part in container["command"]]
    fake = tmp_path / "flowsight"
    fake.write_text('#!/bin/bash\necho "args: $*"\necho \'{"rev": "abc"}\'\nexit ${CODE:-0}\n')
    fake.chmod(0o755)
    python = Path(sys.executable).parent
    environment = {"PATH": f"{tmp_path}:{python}:/usr/bin:/bin"}
    command = [*script, *container["args"]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "args: prepare --run-id r1" in done.stdout
    assert json.loads((tmp_path / "return.json").read_text()) == {"rev": "abc"}
    failed = subprocess.run(command, env={**environment, "CODE": "3"}, capture_output=True)
    assert failed.returncode == 3


@pytest.mark.parametrize(
    ("code", "kind"),
    [(2, "AirflowFailException"), (3, "GateRefused"), (75, "AirflowException"), (137, "SIGKILL")],
)
def test_exit_code_of_a_pod_decides(
    pods: dict[str, Any], monkeypatch: pytest.MonkeyPatch, code: int, kind: str
) -> None:
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    def fails(*_: Any, **__: Any) -> None:
        raise AirflowException("Pod returned a failure")

    monkeypatch.setattr(KubernetesPodOperator, "cleanup", fails)
    ended = SimpleNamespace(exit_code=code, message="epoch 1\nerror: expected sense, got none\n")
    state = SimpleNamespace(terminated=ended)
    statuses = [SimpleNamespace(name="base", state=state)]
    pod = SimpleNamespace(status=SimpleNamespace(container_statuses=statuses))
    with pytest.raises(AirflowException, match="expected sense, got none") as error:
        pods["retrain"].get_task("sample").cleanup(pod, pod)
    assert kind in f"{type(error.value).__name__} {error.value}"
    assert isinstance(error.value, AirflowFailException) == (code in (2, 3))


def test_pod_that_went_away_is_retried(
    pods: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
    from airflow.sdk.exceptions import AirflowException

    def fails(*_: Any, **__: Any) -> None:
        raise AirflowException("Pod not found")

    monkeypatch.setattr(KubernetesPodOperator, "cleanup", fails)
    pod = SimpleNamespace(status=SimpleNamespace(container_statuses=None))
    with pytest.raises(AirflowException, match="Pod not found") as error:
        pods["retrain"].get_task("sample").cleanup(pod, pod)
    assert type(error.value) is AirflowException


@pytest.mark.parametrize(
    ("text", "wrong"),
    [("namespace: x", "expected `image`"), ("image: x\nimages: y", "unknown images")],
)
def test_pod_configuration_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, wrong: str
) -> None:
    (tmp_path / "pods.yaml").write_text(text)
    monkeypatch.setenv("FLOWSIGHT_RUNNER", "kubernetes")
    monkeypatch.setenv("FLOWSIGHT_POD_CONFIG", str(tmp_path / "pods.yaml"))
    with pytest.raises(ImportError, match=wrong):
        load_dags(ROOT)
