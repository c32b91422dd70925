"""Put a better model into service: compare, ask, promote.

`flowsight promote --dry-run` compares the newest version with the one in service; its table is what
a person approves or rejects under *Required Actions*. With `FLOWSIGHT_PROMOTION=automatic` the gate
alone decides. A refusal by the gate ends as skipped, with the reason in the log.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Param, TaskGroup, dag, task
from flowsight_dags import config
from flowsight_dags.assets import RESULTS
from flowsight_dags.notify import Notify
from flowsight_dags.tasks import command

ANSWER_WITHIN = timedelta(days=7)


@task.short_circuit
def concerned(system: str, params: Any, triggering_asset_events: Any) -> bool:
    """Whether this run is about this system."""
    events = [event for events in triggering_asset_events.values() for event in events]
    trained = {name for event in events for name in event.extra.get("systems", [])}
    return system in (trained if events else params["models"])


def approval(system: str, compared: Any) -> ApprovalOperator:
    """Ask a person; no answer within a week means no."""
    table = f"{{{{ ti.xcom_pull(task_ids='{compared.task_id}')['output'] }}}}"
    return ApprovalOperator(
        task_id="approve",
        subject=f"Put the new version of {system} into service?",
        body=f"```\n{table}\n```",
        defaults=ApprovalOperator.REJECT,
        response_timeout=ANSWER_WITHIN,
        notifiers=[Notify("waiting")],
    )


def promotion(system: str) -> None:
    """The tasks of one system."""
    first = concerned(system)
    # thresholds and history are those of the repository, which no worker stands in
    at = ["at", config.load().rev, "promote", system]
    compare = command(
        "compare",
        [*at, "--dry-run"],
        do_xcom_push=True,
        skip_refused=True,
        doc_md="What would change, as a table.",
    )
    promote = command("promote", at, skip_refused=True)
    if config.load().promotion == "automatic":
        first >> compare >> promote
    else:
        first >> compare >> approval(system, compare) >> promote


@dag(
    dag_id="promote",
    description="Compare a newly trained model with the one in service, ask, promote",
    doc_md=__doc__,
    schedule=[RESULTS],
    catchup=False,
    max_active_runs=1,
    params={
        "models": Param(
            config.served(),
            type="array",
            items={"type": "string", "enum": config.served()},
            examples=config.served(),
            minItems=1,
            title="Models",
            description="By hand only; after a training it is what was trained.",
        )
    },
    tags=[*config.TAGS, "registry"],
    default_args={"owner": config.OWNER, "on_failure_callback": Notify("failed")},
)
def promote_dag() -> None:
    for system in config.served():
        with TaskGroup(system):
            promotion(system)


promote_dag()
