"""The command `flowsight`. Thin: parse, call one library function, say what was done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowsight import errors
from flowsight.commands import cluster, standalone

app = typer.Typer(
    help="From raw videos to two-stream attention results, reproducibly.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def repro(
    targets: Annotated[list[str] | None, typer.Argument(help="Stages; default: all.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Run even what did not change.")] = False,
) -> None:
    """Run the pipeline: only what changed since the last time."""
    from flowsight import running

    running.repro(targets or [], force=force)


@app.command()
def compose(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="dataset=weizmann recipe=small seed=2 ...")
    ] = None,
) -> None:
    """Write params.yaml from conf/ (what `dvc exp run -S` does before it runs)."""
    from flowsight import composing

    params = composing.compose(overrides or [])
    typer.echo(f"params.yaml: {composing.describe(params)}")


@app.command("import")
def import_(
    name: Annotated[str, typer.Argument(help="ucf101, hmdb51, weizmann, a new name, or weights.")],
    source: Annotated[Path, typer.Argument(help="Folder of the data set, or a weights file.")],
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy even where a hard link would do.")
    ] = False,
    family: Annotated[
        str | None, typer.Option(help="Layout of a data set under another name: ucf101, folder ...")
    ] = None,
) -> None:
    """Bring a data set to data/raw/NAME, or a weights file to data/weights."""
    from flowsight.datasets import importing

    if name == "weights":
        target = importing.import_weights(source)
    else:
        target = importing.import_dataset(name, source, link=not copy, family=family)
    typer.echo(f"{target} is ready")


@app.command()
def flow(
    video: Annotated[Path, typer.Argument(help="A video file.")],
    out: Annotated[Path, typer.Option(help="Pack to write.")] = Path("flow.zip"),
    method: Annotated[str, typer.Option(help="tvl1, dis or farneback.")] = "tvl1",
    preset: Annotated[str, typer.Option(help="opencv, cuda or fast.")] = "opencv",
    backend: Annotated[str, typer.Option(help="auto or opencv.")] = "auto",
    bound_px: Annotated[float, typer.Option(help="Clip displacements to +- this.")] = 20.0,
) -> None:
    """Optical flow of one video as a pack of JPEGs."""
    from flowsight import flow_packing

    flow_packing.flow_of_video(
        video, out, method=method, preset=preset, backend=backend, bound_px=bound_px
    )
    typer.echo(f"{out} is ready")


cluster.register(app)
standalone.register(app)


def main() -> None:
    """Entry point of the console script."""
    errors.guard(app)


if __name__ == "__main__":
    main()
