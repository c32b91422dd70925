"""Commands of a worker: prepare, run-stage, gather. The last line they print is one JSON object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

RunId = Annotated[str, typer.Option(help="Names the run's branch runs/RUN_ID.")]
Rev = Annotated[str, typer.Option(help="Commit of the run, as `prepare` printed it.")]


def register(app: typer.Typer) -> None:
    """Add the worker's commands to the command line."""
    app.command("prepare")(prepare)
    app.command("run-stage")(run_stage)
    app.command("gather")(gather)


def _say(answer: Mapping[str, Any]) -> None:
    typer.echo(json.dumps(answer, ensure_ascii=False))


def prepare(
    run_id: RunId,
    rev: Annotated[str, typer.Option(help="Branch, tag or commit to start from.")] = "main",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="dataset=weizmann, recipe=small, seed=2 ...")
    ] = None,
) -> None:
    """Compose a run's parameters once and push them on its branch."""
    from flowsight.cluster import prepare as preparing
    from flowsight.cluster import workplace

    place = workplace.from_environment()
    _say(preparing.prepare(place, run_id, rev=rev, settings=settings or []))


def run_stage(
    stage: Annotated[str, typer.Argument(help="A stage of dvc.yaml, as train@spatial-1.")],
    rev: Rev,
    run_id: RunId,
    force: Annotated[bool, typer.Option("--force", help="Run even what did not change.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the work tree if it fails.")] = False,
) -> None:
    """Run one stage of a run in a clone of its own; its results go to the common store."""
    from flowsight.cluster import stage_run, workplace

    place = workplace.from_environment()
    _say(stage_run.run_stage(place, stage, rev=rev, run_id=run_id, force=force, keep=keep))


def gather(rev: Rev, run_id: RunId) -> None:
    """Merge what the stages of a run left into dvc.lock and push it on the run's branch."""
    from flowsight.cluster import gathering, workplace

    _say(gathering.gather(workplace.from_environment(), run_id, rev=rev))
