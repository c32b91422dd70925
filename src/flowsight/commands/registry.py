"""Commands of a model's owner: from a trained system to the one in service, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flowsight.errors import InputError

Model = Annotated[str, typer.Argument(help="Registered model: a system's name.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


def register(app: typer.Typer) -> None:
    """Add the registry's commands to the command line."""
    app.command("register")(register_model)
    app.command("promote")(promote)
    app.command("rollback")(rollback)
    app.command("history")(history)
    app.command("lineage")(lineage)
    app.command("reproduce")(reproduce)


def register_model(
    system: Annotated[str, typer.Argument(help="System of params.yaml.")],
    rev: Annotated[
        str | None, typer.Option(help="Branch, tag or commit; default: the working tree.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split id; default: the first.")] = None,
) -> None:
    """Make a trained system a version of its registered model: the challenger."""
    from flowsight.registry import registering

    if rev is None:
        made = registering.register(system, split_id=split)
    else:
        made = registering.register_revision(system, rev, split_id=split)
    verb = "are now" if made.is_new else "were there already, as"
    typer.echo(f"{made.name}: these checkpoints {verb} version {made.version}", err=True)
    content = {"model": made.name, "version": made.version, "run_id": made.run_id}
    typer.echo(json.dumps(content | {"new": made.is_new}))


def promote(
    model: Model,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only compare.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Against the gate's verdict; needs --reason.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why; kept in the history.")] = "",
) -> None:
    """Let the challenger take the champion's place, if it passes the gate (3: refused)."""
    from flowsight.registry import promoting

    if force and not reason.strip():
        raise InputError("expected --reason TEXT with --force, got none; it is kept in the history")
    outcome = promoting.promote(model, dry_run=dry_run, force=reason if force else None)
    if outcome.done:
        before = f"; version {outcome.champion} is previous" if outcome.champion else ""
        typer.echo(f"version {outcome.challenger} of {model} is champion{before}")
    else:
        typer.echo("dry run: nothing was changed")


def rollback(
    model: Model, reason: Annotated[str, typer.Option(help="Why; kept in the history.")] = ""
) -> None:
    """Put the previous champion back, in one step."""
    from flowsight.registry import aliases, store

    entry = aliases.rollback(store.connect(), model, reason)
    before, after = entry.plan.champion
    typer.echo(f"version {after} of {model} is champion again, after version {before}")


def history(model: Model, as_json: AsJson = False) -> None:
    """Who changed the model in service, when, from what to what, why, with which numbers."""
    from flowsight.registry import history as remembering
    from flowsight.registry import store

    found = remembering.history(store.connect(), model)
    typer.echo(json.dumps(found) if as_json else remembering.as_text(model, found))


def lineage(
    reference: Annotated[
        str,
        typer.Argument(
            help="models:/SYSTEM@champion, models:/SYSTEM/3, a run's id, a checkpoint's "
            "path, a commit, a hash of DVC, a clip as <label>/<stem>, an image or a video."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """What led to a model; or which models came from a commit, checkpoint, data or item."""
    from flowsight.registry import lineage as tracing
    from flowsight.registry import lineage_text, store

    found = tracing.trace(store.connect(), reference, Path())
    typer.echo(json.dumps(found) if as_json else lineage_text.as_text(found))


def reproduce(
    reference: Annotated[str, typer.Argument(help="models:/SYSTEM@champion, ...")],
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Run every command again (hours for a large one).")
    ] = False,
    keep: Annotated[
        Path | None, typer.Option(help="Leave the work tree in this folder; default: remove it.")
    ] = None,
) -> None:
    """Run a model's pipeline again at its commit and say whether it comes out the same."""
    from flowsight.registry import reproducing, store

    report = reproducing.reproduce(
        store.connect(), reference, Path(), use_cache=not no_cache, keep=keep
    )
    typer.echo("\n".join(report.lines()))
    reproducing.check_reproduced(report)
