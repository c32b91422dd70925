"""Commands of a worker. The last line they print is one JSON object, messages go to stderr."""

from __future__ import annotations

import json
import os
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
    app.command("ingest")(ingest)
    app.command("gc")(gc)
    app.command("withdraw")(withdraw)
    unread = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command("at", context_settings=unread)(at)


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
    os.environ["FLOWSIGHT_RUN_ID"] = workplace.check_run_id(run_id)  # its trainings' runs nest
    _say(stage_run.run_stage(place, stage, rev=rev, run_id=run_id, force=force, keep=keep))


def gather(rev: Rev, run_id: RunId) -> None:
    """Merge what the stages of a run left into dvc.lock and push it on the run's branch."""
    from flowsight.cluster import gathering, workplace

    _say(gathering.gather(workplace.from_environment(), run_id, rev=rev))


def ingest(
    drop: Annotated[str, typer.Option(help="Folder or s3:// URL with <label>/<file>.")],
    dataset: Annotated[str | None, typer.Option(help="Default: the one in params.yaml.")] = None,
    run_id: Annotated[str | None, typer.Option(help="For the commit's message.")] = None,
) -> None:
    """Take new videos into a data set: one commit on main; broken ones to quarantine/."""
    from flowsight.cluster import ingest as ingesting
    from flowsight.cluster import workplace

    place = workplace.from_environment()
    _say(ingesting.ingest(place, drop, dataset=dataset, run_id=run_id))


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    keep_days: Annotated[float, typer.Option(help="Younger runs stay.")] = 30,
    remote: Annotated[
        bool, typer.Option("--remote", help="Clean the DVC remote too, not only the cache.")
    ] = False,
) -> None:
    """Remove what no branch, tag, registered model or kept run needs."""
    from flowsight.cluster import collecting, workplace

    place = workplace.from_environment()
    _say(collecting.collect(place, keep_days=keep_days, remote=remote, dry_run=dry_run))


def withdraw(
    clip: Annotated[str, typer.Argument(help="<label>/<stem>")],
    dataset: Annotated[str | None, typer.Option(help="Default: the one in params.yaml.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
) -> None:
    """Remove a clip from a data set and list the models that have learnt from it."""
    from flowsight.cluster import withdrawing, workplace

    place = workplace.from_environment()
    _say(withdrawing.withdraw(place, clip, dataset=dataset, dry_run=dry_run))


def at(
    context: typer.Context,
    rev: Annotated[str, typer.Argument(help="Branch, tag or commit of FLOWSIGHT_REPO.")],
) -> None:
    """Run another command of flowsight in a work tree at REV: at main promote SYSTEM."""
    from flowsight.cluster import at_revision, workplace
    from flowsight.errors import InputError

    if not context.args:
        raise InputError("expected a command after REV, as `flowsight at main promote SYSTEM`")
    code = at_revision.run_at(workplace.from_environment(), rev, context.args)
    raise typer.Exit(code)
