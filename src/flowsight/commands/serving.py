"""`flowsight predict`: class scores of a user's own videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("predict")(predict)


def predict(
    videos: Annotated[list[str], typer.Argument(help="Video files of any format OpenCV reads.")],
    model: Annotated[
        str | None,
        typer.Option(help="models:/NAME@ALIAS or a folder; default: the system's champion."),
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="two_stream or residual3d; default: the model's.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to show.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    overlay: Annotated[
        Path | None,
        typer.Option(help="Film of the attention: .webm (browsers), .mp4 or .avi."),
    ] = None,
) -> None:
    """Say what is done in videos, with the champion or the working tree's checkpoints."""
    from flowsight.serving import telling

    telling.predict([Path(video) for video in videos], model, top, as_json, overlay, system)
