"""The command `flowsight`. Thin: parse, call one library function, say what was done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowsight import errors
from flowsight.commands import cluster, registry, results, serving, standalone, tracking

app = typer.Typer(
    help="From raw videos to two-stream attention results, reproducibly.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def repro(
    targets: Annotated[
        list[str] | None, typer.Argument(help="Stages; default: the page, with all it needs.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Run even what did not change.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Stages side by side.")] = 1,
) -> None:
    """Run the pipeline: only what changed since the last time."""
    from flowsight.pipeline import running

    running.repro(targets or [], force=force, jobs=jobs)


@app.command()
def compose(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="dataset=weizmann recipe=small seed=2 ...")
    ] = None,
) -> None:
    """Write params.yaml from conf/ (what `dvc exp run -S` does before it runs)."""
    from flowsight.pipeline import composing

    params = composing.compose(overrides or [])
    typer.echo(f"params.yaml: {composing.describe(params)}")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Of the new system, as face_search.")],
    kind: Annotated[str, typer.Option(help="Of its data: clips, scenes or images.")],
    like: Annotated[str, typer.Option(help="System that its files are copied from.")],
) -> None:
    """A new system: code, numbers and tests that run and pass, to be changed file by file."""
    from flowsight.pipeline import new_system

    for path in new_system.new(name, kind=kind, like=like):
        typer.echo(f"{path} is ready")
    typer.echo(f"next: flowsight compose 'systems=[{name}]' recipe=smoke; flowsight repro; "
               f"pytest tests/systems/{name}; then docs/systems.md")  # fmt: skip


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
    preset: Annotated[str, typer.Option(help="opencv, near, fast or cuda.")] = "opencv",
    backend: Annotated[str, typer.Option(help="auto, cpu, gpu, torch or opencv.")] = "auto",
    bound_px: Annotated[float, typer.Option(help="Clip displacements to +- this.")] = 20.0,
    quality: Annotated[int, typer.Option(help="Of the JPEGs, 1..100.")] = 95,
    size: Annotated[
        tuple[int, int] | None, typer.Option(help="Width and height in px; default: the video's.")
    ] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Also a picture and a film of it, beside the pack.")
    ] = False,
) -> None:
    """Optical flow of one video as a pack of JPEGs."""
    from flowsight.datasets.clips import flow as flow_packing

    settings = {"method": method, "preset": preset, "backend": backend, "size": size}
    flow_packing.flow_of_video(video, out, bound_px=bound_px, quality=quality, **settings)
    typer.echo(f"{out} is ready")
    if preview:
        from flowsight.video import preview as flow_preview

        picture, film = out.with_suffix(".png"), out.with_suffix(".webm")
        longest_px = flow_preview.preview(video, out, picture, film)
        typer.echo(f"look at {picture} and {film} (full colour: {longest_px:.1f} px/frame)")


@app.command("export-denseflow")
def export_denseflow(
    out: Annotated[Path, typer.Argument(help="Folder for <class>/<stem>/*.jpg.")],
    frames: Annotated[Path | None, typer.Option(help="Folder of frames packs.")] = None,
    flow: Annotated[Path | None, typer.Option(help="Folder of flow packs.")] = None,
    naming: Annotated[str, typer.Option(help="denseflow or tsn.")] = "denseflow",
) -> None:
    """Packs to loose folders of JPEGs, as denseflow and TSN's tools read them."""
    from flowsight.video import denseflow

    clips = denseflow.export_folders(out, frames=frames, flow=flow, naming=naming)
    typer.echo(f"{out}: {len(clips)} clips")


@app.command("import-denseflow")
def import_denseflow(
    root: Annotated[Path, typer.Argument(help="Folder of <class>/<stem>/*.jpg.")],
    frames: Annotated[Path | None, typer.Option(help="Folder for frames packs.")] = None,
    flow: Annotated[Path | None, typer.Option(help="Folder for flow packs.")] = None,
    bound_px: Annotated[float, typer.Option(help="The bound it was stored with.")] = 20.0,
    fps: Annotated[float, typer.Option(help="Of the videos, for the time stamps.")] = 25.0,
) -> None:
    """Loose folders of denseflow or TSN to packs."""
    from flowsight.errors import InputError
    from flowsight.video import denseflow

    if frames is None and flow is None:
        raise InputError("expected --frames FOLDER or --flow FOLDER to write packs to, got neither")
    clips = denseflow.import_folders(root, frames=frames, flow=flow, bound_px=bound_px, fps=fps)
    typer.echo(f"{len(clips)} clips imported")


cluster.register(app)
registry.register(app)
results.register(app)
serving.register(app)
standalone.register(app)
tracking.register(app)


def main() -> None:
    """Entry point of the console script."""
    errors.guard(app)


if __name__ == "__main__":
    main()
