"""The runs of one run of the pipeline, below a parent that all of them find by a tag.

Processes on several machines may need the parent at the same moment, and MLflow knows no "make it
unless it is there". So whoever makes one looks again: of several the first (by start, then by id)
stays, the others are deleted and, after that, their children are moved. Whoever was about to use a
deleted one looks at it once more after having used it, and follows. In whatever order this happens,
one parent is left, and every child is below it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RUN_ID = "flowsight.run_id"
PARENT = "mlflow.parentRunId"
_COPIED = ("dataset", "recipe", "mlflow.user", "mlflow.source.git.commit")


def join(client: MlflowClient, experiment: str, child: str, start: Mapping[str, Any]) -> str:
    """Put a run below the parent of its run of the pipeline.

    Args:
        client: of the store.
        experiment: id.
        child: id of the run.
        start: of its spool, with `run_id` of the run of the pipeline.

    Returns:
        The parent's id.
    """
    while True:
        parent = _find_or_make(client, experiment, start)
        client.set_tag(child, PARENT, parent)
        if client.get_run(parent).info.lifecycle_stage == "active":
            return parent


def settle(client: MlflowClient, experiment: str, parent: str) -> None:
    """A parent is over when its children are, and went as their last attempts did."""
    last: dict[str, Run] = {}
    for one in sorted(_below(client, experiment, parent), key=lambda run: run.info.start_time):
        last[one.info.run_name] = one
    statuses = {run.info.status for run in last.values()}
    if "RUNNING" in statuses:
        client.update_run(parent, status="RUNNING")
        return
    status = next((s for s in ("FAILED", "KILLED") if s in statuses), "FINISHED")
    ends = [run.info.end_time for run in last.values() if run.info.end_time]
    client.set_terminated(parent, status, max(ends, default=None))


def _find_or_make(client: MlflowClient, experiment: str, start: Mapping[str, Any]) -> str:
    found = _parents(client, experiment, start["run_id"])
    if not found:
        tags = {name: start["tags"][name] for name in _COPIED if name in start["tags"]}
        client.create_run(
            experiment,
            start_time=start["time_ms"],
            tags={**tags, RUN_ID: start["run_id"]},
            run_name=start["run_id"],
        )
        found = _parents(client, experiment, start["run_id"])
    first, *others = found
    for other in others:
        client.delete_run(other)
        for child in _below(client, experiment, other):
            client.set_tag(child.info.run_id, PARENT, first)
    return first


def _parents(client: MlflowClient, experiment: str, run_id: str) -> list[str]:
    # a run's id is a plain name without quotes
    found = _search(client, experiment, f"tags.`{RUN_ID}` = '{run_id}'")
    found.sort(key=lambda run: (run.info.start_time, run.info.run_id))
    return [run.info.run_id for run in found]


def _below(client: MlflowClient, experiment: str, parent: str) -> list[Run]:
    return _search(client, experiment, f"tags.`{PARENT}` = '{parent}'")


def _search(client: MlflowClient, experiment: str, condition: str) -> list[Run]:
    page = client.search_runs([experiment], condition, max_results=1000)
    found = list(page)
    while page.token:
        page = client.search_runs([experiment], condition, max_results=1000, page_token=page.token)
        found += page
    return found
