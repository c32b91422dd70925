"""`flowsight summarize`: several runs' results as one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("summarize")(summarize)


def summarize(
    runs: Annotated[
        list[str], typer.Argument(help="NAME=FOLDER, its results/<system>; a folder for each run.")
    ],
    compare: Annotated[
        list[str] | None,
        typer.Option(help="ONE:OTHER, two fusions or rows; default: each with the first."),
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="Of clips, for the 95 % intervals.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 1,
    plot: Annotated[Path | None, typer.Option(help="PNG of accuracies and differences.")] = None,
) -> None:
    """Accuracies, paired differences and map scores over runs of the same clips (seeds), as
    Markdown, in %.
    """
    from flowsight.classifiers import several_figures, several_runs
    from flowsight.metrics.bootstrap import Resampling

    folders = {name: Path(folder) for name, folder in (_halves(run, "=") for run in runs)}
    if len(folders) < len(runs):
        raise typer.BadParameter("expected another name for each run")
    found = several_runs.read(folders)
    resampling = Resampling(num_samples=draws, confidence=0.95, seed=seed)
    pairs = several_runs.pairs(found, [_halves(pair, ":") for pair in compare or []])
    accuracies = several_runs.accuracies(found, resampling)
    differences = several_runs.differences(found, pairs, resampling)
    typer.echo(several_runs.markdown(accuracies))
    typer.echo(several_runs.markdown(differences))
    maps = several_runs.localizations(folders)
    if maps is not None:
        typer.echo(several_runs.markdown(maps))
    if plot is not None:
        several_figures.runs_figure(accuracies, differences, found.names, plot)


def _halves(text: str, mark: str) -> tuple[str, str]:
    one, found, other = text.partition(mark)
    if not (one and found and other):
        raise typer.BadParameter(f"expected two names joined by '{mark}', got '{text}'")
    return one, other
