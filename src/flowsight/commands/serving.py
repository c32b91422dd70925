"""`flowsight predict`: what a system says of a user's own videos or images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("predict")(predict)


def predict(
    videos: Annotated[
        list[str], typer.Argument(help="Videos of any format OpenCV reads, or images.")
    ],
    model: Annotated[
        str | None,
        typer.Option(help="models:/NAME@ALIAS or a folder; default: the system's champion."),
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(help="Whose champion; default: the model's, or the first of params.yaml."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to show.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    overlay: Annotated[
        Path | None,
        typer.Option(
            help="Film of what it looked at or found: .webm (browsers), .mp4 or .avi; of an image "
            ".png."
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(help="Folder for masks: of an image a PNG, of a video a zip of PNGs."),
    ] = None,
) -> None:
    """Say what videos or images show, with the champion or the working tree's checkpoints."""
    from flowsight.serving import predict_command

    files = [Path(video) for video in videos]
    predict_command.predict(files, model, top, as_json, overlay, system, masks)
