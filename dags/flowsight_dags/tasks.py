"""Tasks that run a `flowsight` command, here or in a pod, as the configuration says."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator

from flowsight.pipeline.nodes import Needs
from flowsight_dags import config
from flowsight_dags.notify import Notify

GPU_POOL = "gpu"
CPU_POOL = "default_pool"
LIGHT = Needs(memory_gb=2, timeout_min=60, retries=3)
"""Needs of the commands around the stages: git, DVC, no computing."""


def command(
    task_id: str, arguments: Sequence[str] | Any, *, needs: Needs = LIGHT, **options: Any
) -> BaseOperator:
    """One task that runs `flowsight ARGUMENTS...`.

    Args:
        task_id: its name.
        arguments: after `flowsight`; may be the output of another task.
        needs: what it takes to run.
        options: more for the operator.
    """
    operator, settings = _operator(needs, options)
    return operator(task_id=task_id, arguments=arguments, **settings)


def mapped_command(task_id: str, arguments: Any, *, needs: Needs, **options: Any) -> Any:
    """One task per list of arguments in the output of another task."""
    operator, settings = _operator(needs, options)
    settings.setdefault("max_active_tis_per_dagrun", config.load().max_parallel)
    return operator.partial(task_id=task_id, **settings).expand(arguments=arguments)


def _operator(needs: Needs, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The operator's class and settings for this installation."""
    settings = {**scheduling(needs), **options}
    if config.load().runner == "kubernetes":
        # two seconds of import, so only where it is wanted
        from flowsight_dags import pods

        return pods.FlowsightPodOperator, {**settings, **pods.settings(needs)}
    from flowsight_dags.local import FlowsightOperator

    # which workers take it; a pod's machine is chosen by labels instead
    return FlowsightOperator, {"queue": needs.queue, **settings}


def scheduling(needs: Needs) -> dict[str, Any]:
    """Pool, timeout and retries for what a command needs."""
    delay = timedelta(seconds=config.load().retry_delay_sec)
    return {
        "pool": GPU_POOL if needs.gpus else CPU_POOL,
        "pool_slots": max(1, needs.gpus),
        "execution_timeout": timedelta(minutes=needs.timeout_min),
        "retries": needs.retries,
        "retry_delay": delay,
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": max(delay, timedelta(minutes=30)),
        "on_failure_callback": Notify("failed"),
    }
