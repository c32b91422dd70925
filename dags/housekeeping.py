"""Once a week, remove what no run needs any more (`flowsight gc`)."""

from __future__ import annotations

from airflow.sdk import Param, dag
from flowsight_dags import config
from flowsight_dags.notify import Notify
from flowsight_dags.tasks import command


@dag(
    dag_id="housekeeping",
    description="Remove what no run needs any more",
    doc_md=__doc__,
    schedule=config.clock("@weekly"),
    catchup=False,
    max_active_runs=1,
    params={
        "keep_days": Param(30, type="integer", minimum=1, maximum=3650, title="Keep for (days)"),
        "dry_run": Param(False, type="boolean", title="Only say what would go"),
    },
    tags=config.TAGS,
    default_args={"owner": config.OWNER, "on_failure_callback": Notify("failed")},
)
def housekeeping() -> None:
    dry_run = "{{ '--dry-run' if params.dry_run else '' }}"
    command("gc", ["gc", "--keep-days", "{{ params.keep_days }}", dry_run], do_xcom_push=True)


housekeeping()
