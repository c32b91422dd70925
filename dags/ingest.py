"""Take in new videos: from the drop folder into `data/raw`, each with its checksum.

Broken files are quarantined with a reason. Only when something was added do those hear of it who
wait for raw data (`retrain`). Paused until somebody turns it on.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, dag, task
from airflow.sdk.exceptions import AirflowSkipException
from flowsight_dags import config, forms
from flowsight_dags.assets import RAW_DATA
from flowsight_dags.notify import Notify
from flowsight_dags.tasks import command

SCHEDULE = config.load().ingest_schedule


@task
def settings(params: Any, dag_run: Any) -> list[str]:
    """The command for this run."""
    run = forms.run_id(dag_run.run_id)
    folder, dataset = params["drop"], params["dataset"]
    return ["ingest", "--drop", folder, "--dataset", dataset, "--run-id", run]


@task(outlets=[RAW_DATA])
def announce(ingested: dict[str, Any], params: Any, outlet_events: Any) -> int:
    """Tell those who wait for raw data; nobody when nothing is new."""
    for file, reason in ingested["quarantined"].items():
        print(f"quarantined {file}: {reason}")
    if not ingested["added"]:
        raise AirflowSkipException("nothing new in the drop folder")
    outlet_events[RAW_DATA].extra = {
        "dataset": params["dataset"],
        "added": ingested["added"],
        "commit": ingested["commit"],
    }
    return len(ingested["added"])


@dag(
    dag_id="ingest",
    description="Take in new videos from the drop folder",
    doc_md=__doc__,
    schedule=config.clock(SCHEDULE) if SCHEDULE else None,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    params={
        "drop": Param(
            config.load().drop,
            type="string",
            pattern=r"^[^-\s][^\n]*$",
            maxLength=500,
            title="Drop folder",
            description="As the worker sees it.",
        ),
        "dataset": Param(
            config.params()["dataset"]["name"],  # type: ignore[index]
            enum=config.choices("dataset"),
            title="Data set",
        ),
    },
    tags=[*config.TAGS, "data"],
    default_args={"owner": config.OWNER, "on_failure_callback": Notify("failed")},
)
def ingest() -> None:
    announce(command("ingest", settings(), do_xcom_push=True).output)


ingest()
