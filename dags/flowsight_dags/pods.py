"""Run a `flowsight` command in a pod of its own. Imported only with FLOWSIGHT_RUNNER=kubernetes.

What the pods of an installation share stands in the YAML file that `FLOWSIGHT_POD_CONFIG` names:

    image: registry.example/flowsight:1.0       # required
    namespace: flowsight
    service_account: flowsight-worker
    image_pull_secrets: [registry]
    gpu_resource: nvidia.com/gpu
    env: {FLOWSIGHT_REPO: "https://git.example/flowsight.git"}
    secrets: [flowsight-worker]                 # their keys become environment variables
    volumes:
      - {name: scratch, claim: flowsight-scratch, mount: /scratch, read_only: false}
    queues:                                     # meta.queue -> where its pods go
      gpu: {labels: {pool: gpu}, tolerations: [{key: nvidia.com/gpu, operator: Exists}]}
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk.definitions.context import Context
from airflow.sdk.exceptions import AirflowException, AirflowSkipException
from kubernetes.client import models as k8s

from flowsight.errors import InputError
from flowsight.pipeline import dvc_yaml
from flowsight.pipeline.nodes import Needs
from flowsight_dags import notify, outcome

# the pod's stdout goes to the log and, as `outcome.result` has it, to Airflow's side container
_HAND_ON = """
import json, sys
lines = []
for line in sys.stdin:
    print(line, end="", flush=True)
    lines = [*lines[-199:], line.rstrip("\\n")]
try:
    value = json.loads(lines[-1]) if lines else None
except ValueError:
    value = None
if not isinstance(value, dict):
    value = {"output": "\\n".join(lines)}
json.dump(value, open("/airflow/xcom/return.json", "w"))
"""
_SCRIPT = f"set -o pipefail; flowsight \"$@\" | python3 -c '{_HAND_ON}'"


@dataclass(frozen=True)
class PodConfig:
    """The shared part of every pod, checked."""

    image: str
    namespace: str = "default"
    service_account: str | None = None
    image_pull_secrets: list[str] = field(default_factory=list)
    gpu_resource: str = "nvidia.com/gpu"
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    volumes: list[Mapping[str, Any]] = field(default_factory=list)
    queues: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@cache
def load() -> PodConfig:
    """The file that `FLOWSIGHT_POD_CONFIG` names.

    Raises:
        InputError: no such file, an unknown key, or no image.
    """
    path = Path(os.environ.get("FLOWSIGHT_POD_CONFIG", ""))
    if not path.is_file():
        raise InputError(
            f"FLOWSIGHT_POD_CONFIG: expected a YAML file for FLOWSIGHT_RUNNER=kubernetes, got "
            f"{str(path)!r}; docs/airflow.md has an example"
        )
    content = dvc_yaml.read_yaml(path) or {}
    known = {entry.name for entry in fields(PodConfig)}
    if unknown := set(content) - known:
        raise InputError(f"{path}: unknown {', '.join(sorted(unknown))}; known: {sorted(known)}")
    if "image" not in content:
        raise InputError(f"{path}: expected `image`, the container that has `flowsight`")
    return PodConfig(**content)


def settings(needs: Needs) -> dict[str, Any]:
    """Arguments of the operator for what a command needs."""
    config = load()
    place = config.queues.get(needs.queue, {})
    return {
        "image": config.image,
        "namespace": config.namespace,
        "service_account_name": config.service_account,
        "image_pull_secrets": [k8s.V1LocalObjectReference(s) for s in config.image_pull_secrets],
        "env_vars": {"SHLVL": "1", **{k: str(v) for k, v in config.env.items()}},
        "env_from": [
            k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name=secret))
            for secret in config.secrets
        ],
        "volumes": [_volume(entry) for entry in config.volumes],
        "volume_mounts": [_mount(entry) for entry in config.volumes],
        "container_resources": _resources(needs, config.gpu_resource),
        "node_selector": dict(place.get("labels", {})),
        "tolerations": [k8s.V1Toleration(**entry) for entry in place.get("tolerations", [])],
        "labels": {"app": "flowsight", "queue": needs.queue},
    }


def _volume(entry: Mapping[str, Any]) -> k8s.V1Volume:
    claim = k8s.V1PersistentVolumeClaimVolumeSource(claim_name=entry["claim"])
    return k8s.V1Volume(name=entry["name"], persistent_volume_claim=claim)


def _mount(entry: Mapping[str, Any]) -> k8s.V1VolumeMount:
    return k8s.V1VolumeMount(
        name=entry["name"],
        mount_path=entry["mount"],
        read_only=bool(entry.get("read_only", False)),
    )


def _resources(needs: Needs, gpu_resource: str) -> k8s.V1ResourceRequirements:
    memory = f"{int(needs.memory_gb * 1024)}Mi"
    gpus = {gpu_resource: str(needs.gpus)} if needs.gpus else {}
    # the limit equals the request: a pod that outgrows it dies alone, not its neighbours
    return k8s.V1ResourceRequirements(
        requests={"memory": memory}, limits={"memory": memory, **gpus}
    )


class FlowsightPodOperator(KubernetesPodOperator):
    """The same call as `FlowsightOperator`, in a pod; exit codes mean the same."""

    def __init__(self, *, arguments: Any, skip_refused: bool = False, **kwargs: Any) -> None:
        hand_on = kwargs.get("do_xcom_push", False)
        super().__init__(
            arguments=arguments,
            cmds=["bash", "-c", _SCRIPT, "flowsight"] if hand_on else ["flowsight"],
            do_xcom_push=hand_on,
            on_finish_action="delete_pod",
            # what the command said last, where `outcome.last_words` finds the reason
            termination_message_policy="FallbackToLogsOnError",
            **{name: value for name, value in kwargs.items() if name != "do_xcom_push"},
        )
        self.skip_refused = skip_refused

    def execute(self, context: Context) -> Any:
        if not self.arguments:
            raise AirflowSkipException("not part of this run")
        self.arguments = [str(part) for part in self.arguments if part]
        return super().execute(context)

    def cleanup(
        self,
        pod: k8s.V1Pod,
        remote_pod: k8s.V1Pod,
        xcom_result: dict[str, Any] | None = None,
        context: Context | None = None,
    ) -> None:
        try:
            super().cleanup(pod, remote_pod, xcom_result, context)
        except AirflowException as failure:
            ended = _ended(remote_pod, self.base_container_name)
            if ended is None:
                raise  # the pod went away: lost machine, worth a retry
            words = outcome.last_words((ended.message or "").splitlines())
            error = outcome.as_exception(ended.exit_code, words, skip_refused=self.skip_refused)
            if context is not None:
                context["ti"].xcom_push("failure", str(error))
                if isinstance(error, AirflowSkipException):
                    notify.tell("refused", context, str(error))
            raise error from failure


def _ended(pod: k8s.V1Pod, container: str) -> k8s.V1ContainerStateTerminated | None:
    """How the container ended; None where nobody saw it end with a failure."""
    statuses = (pod.status.container_statuses if pod and pod.status else None) or []
    states = [status.state for status in statuses if status.name == container]
    ended = states[0].terminated if states and states[0] else None
    return ended if ended is not None and ended.exit_code else None
