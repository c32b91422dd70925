"""Train again: data, networks, results, from one revision, as `dvc.yaml` says.

The tasks are the stage groups of `dvc.yaml`; how many instances one has is known when `prepare` has
composed the parameters. Weekly, after new raw data, or by hand with the form.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from airflow.sdk import AssetOrTimeSchedule, TaskGroup, dag, task
from airflow.sdk.exceptions import AirflowFailException
from flowsight_dags import config, forms, results
from flowsight_dags.assets import RAW_DATA, RESULTS
from flowsight_dags.notify import Notify
from flowsight_dags.tasks import LIGHT, command, mapped_command

from flowsight.pipeline import nodes

NODES = nodes.load(config.ROOT)
OWN_TASKS = ("settings", "prepare", "plan", "gather", "registrations", "register", "publish")
SCHEDULE = config.load().retrain_schedule


@task
def settings(params: Any, dag_run: Any, triggering_asset_events: Any) -> list[str]:
    """The command that prepares the run, from the form or from what `ingest` added."""
    values = dict(params)
    for event in (event for events in triggering_asset_events.values() for event in events):
        values["dataset"] = event.extra.get("dataset", values["dataset"])
        values["rev"] = event.extra.get("commit", values["rev"])
    try:
        run = forms.run_id(dag_run.run_id)
        arguments = forms.prepare_arguments(values, run, values["rev"])
    except ValueError as error:
        raise AirflowFailException(str(error)) from None
    print(forms.shown(arguments))
    return arguments


@task
def instances(node: str, prepared: dict[str, Any], params: Any) -> list[list[str]]:
    """The commands of a mapped task, one per instance that the run's parameters ask for."""
    stages = nodes.assign(prepared["groups"], NODES)[node]
    options = ["--rev", prepared["rev"], "--run-id", prepared["run_id"]]
    force = ["--force"] if params["force"] else []
    return [["run-stage", stage, *options, *force] for stage in stages]


@task
def registrations(prepared: dict[str, Any], params: Any) -> list[list[str]]:
    """The commands that register what was trained, from the branch that `gather` completed."""
    branch = f"runs/{prepared['run_id']}"
    chosen = [system for system in params["systems"] if system in config.served()]
    return [["register", system, "--rev", branch] for system in chosen]


@task(outlets=[RESULTS])
def publish(gathered: dict[str, Any], params: Any, dag_run: Any, outlet_events: Any) -> str:
    """Say where the results are: in the log, in the run's note, and to those who wait for them."""
    where = results.where(gathered)
    print(where)
    results.note_run(dag_run.dag_id, dag_run.run_id, where)
    outlet_events[RESULTS].extra = {**gathered, "systems": params["systems"]}
    return where


def stage_tasks(prepared: Any) -> dict[str, Any]:
    """A task for each node, drawn in its section, with the edges of `dvc.yaml`."""
    if clash := set(OWN_TASKS) & {node.task_id for node in NODES.values()}:
        raise nodes.InputError(f"dvc.yaml: {sorted(clash)} are names of the DAG's own tasks")
    with TaskGroup("plan"):
        plans = {
            name: instances.override(task_id=node.task_id)(name, prepared.output)
            for name, node in NODES.items()
            if node.mapped
        }
    boxes = section_groups()
    made: dict[str, Any] = {}
    for name, node in NODES.items():
        with boxes.get(node.section, nullcontext()):
            made[name] = mapped_stage(node, plans[name]) if node.mapped else plain_stage(node)
        for before in node.upstream:
            made[before] >> made[name]
        if not node.upstream:
            prepared >> made[name]
    return made


def section_groups() -> dict[str, TaskGroup]:
    """A box for each section of several nodes; their names stay as in `dvc.yaml`."""
    sections = [node.section for node in NODES.values()]
    return {
        section: TaskGroup(
            f"section-{section.replace(' ', '-')}",
            group_display_name=section,
            prefix_group_id=False,
        )
        for section in dict.fromkeys(sections)
        if sections.count(section) > 1
    }


def of_prepared(key: str) -> str:
    """A template for a value that `prepare` printed."""
    return f"{{{{ ti.xcom_pull(task_ids='prepare')['{key}'] }}}}"


OF_RUN = ["--rev", of_prepared("rev"), "--run-id", of_prepared("run_id")]


def plain_stage(node: nodes.Node) -> Any:
    """The task of a node that is one stage."""
    force = "{{ '--force' if params.force else '' }}"
    return command(node.task_id, ["run-stage", node.name, *OF_RUN, force], **options(node))


def mapped_stage(node: nodes.Node, arguments: Any) -> Any:
    """The task of a node with several instances; each shows its stage's name."""
    shown = "{{ task.arguments[1] }}"
    return mapped_command(node.task_id, arguments, map_index_template=shown, **options(node))


def options(node: nodes.Node) -> dict[str, Any]:
    """What the operators of both kinds of node share."""
    return {
        "needs": node.needs,
        "task_display_name": node.name,
        "doc_md": node.desc or None,
        # a node without instances in this run is skipped; what follows it is not
        "trigger_rule": "none_failed",
    }


@dag(
    dag_id="retrain",
    description="Train again from one revision, as dvc.yaml says",
    doc_md=__doc__,
    schedule=AssetOrTimeSchedule(timetable=config.clock(SCHEDULE), assets=RAW_DATA)
    if SCHEDULE
    else [RAW_DATA],
    catchup=False,
    max_active_runs=1,
    params=forms.retrain(),
    tags=[*config.TAGS, "training"],
    default_args={"owner": config.OWNER, "on_failure_callback": Notify("failed")},
)
def retrain() -> None:
    prepared = command("prepare", settings(), do_xcom_push=True)
    stages = stage_tasks(prepared)
    gathered = command("gather", ["gather", *OF_RUN], do_xcom_push=True, trigger_rule="none_failed")
    used = {before for node in NODES.values() for before in node.upstream}
    for name in set(stages) - used:
        stages[name] >> gathered
    published = publish(gathered.output)
    if config.load().register:
        registered = mapped_command(
            "register",
            registrations(prepared.output),
            needs=LIGHT,
            map_index_template="{{ task.arguments[1] }}",
        )
        gathered >> registered >> published


retrain()
