"""Take a model out of service: the one before it serves again. By hand only."""

from __future__ import annotations

from airflow.sdk import dag
from flowsight_dags import config, forms
from flowsight_dags.notify import Notify
from flowsight_dags.tasks import command


@dag(
    dag_id="rollback",
    description="Put the previous version of a model back into service",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    max_active_runs=1,
    params={"model": forms.model()},
    tags=[*config.TAGS, "registry"],
    default_args={"owner": config.OWNER, "on_failure_callback": Notify("failed")},
)
def rollback() -> None:
    command("rollback", ["rollback", "{{ params.model }}"], do_xcom_push=True)


rollback()
