"""Commands for what trainings logged while MLflow was away."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[
    Path | None,
    typer.Argument(help="Of what waits; default: below FLOWSIGHT_SCRATCH or build/scratch."),
]


def register(app: typer.Typer) -> None:
    """Add `flowsight tracking` to the command line."""
    own = typer.Typer(no_args_is_help=True)
    own.command("list")(show)
    own.command("send")(send)
    app.add_typer(own, name="tracking", help="What trainings logged and MLflow does not have yet.")


def show(
    folder: Folder = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List what waits to be sent."""
    from flowsight.tracking import place, sending

    folder = folder or place.spool_folder()
    found = sending.waiting(folder)
    if as_json:
        rows = [{**vars(one), "path": str(one.path)} for one in found]
        typer.echo(json.dumps(rows))
        return
    for one in found:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.start_ms / 1000))
        typer.echo(f"{one.name}  {since}  {one.num_steps} epochs  {one.state}  {one.uri}")
    typer.echo(f"{len(found)} in {folder}" if found else f"nothing waits in {folder}")


def send(
    folder: Folder = None,
    uri: Annotated[
        str | None, typer.Option(help="Where to send it; default: where each was meant for.")
    ] = None,
) -> None:
    """Send what waits; 75: something could not be sent and stays."""
    from flowsight.errors import ResourceError
    from flowsight.tracking import place, sending

    def say(one: sending.Sent) -> None:
        done = f"sent, {one.num_steps} epochs" if one.is_sent else f"not sent: {one.why}"
        typer.echo(f"{one.name}: {done}")

    folder = folder or place.spool_folder()
    sent = sending.send(folder, uri=uri, told=say)
    left = [one for one in sent if one.is_failed]
    if left:
        raise ResourceError(
            f"expected to send {len(sent)}, {len(left)} stay in {folder}: {left[0].why}"
        )
    if not sent:
        typer.echo(f"nothing waits in {folder}")
