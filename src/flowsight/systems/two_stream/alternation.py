"""Two streams trained in turn, each with the other's newest maps: the thesis's Algorithm 1.

A round: the first stream trains on (its frames, the second's maps); its maps are drawn anew; the
second trains on (its flow, those maps); its maps are drawn anew. In the first step there are no
maps yet: the first stream sees the constant. Rounds share out the epochs of the rows' schedule; a
stream goes on from its own weights, its optimiser starts afresh in each round.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flowsight import files
from flowsight.classifiers import networks
from flowsight.classifiers.params import RowParams
from flowsight.errors import InputError
from flowsight.nn import checkpoint
from flowsight.params.config import Params
from flowsight.systems.two_stream import network
from flowsight.systems.two_stream.maps import extraction
from flowsight.systems.two_stream.params import SYSTEM
from flowsight.training import loop, resume, schedule
from flowsight.training.loop import Log
from flowsight.training.schedule import Epoch


@dataclass(frozen=True)
class Partner:
    """One of the two streams: its row, what it reads, where its results go."""

    name: str
    """Key of `rows`."""
    row: RowParams
    packs: Path
    checkpoint: Path
    """Folder for `model.pt`."""
    history: Path
    """CSV, a line an epoch, over all rounds."""
    maps: Path
    """Folder for its attention maps."""
    attention_network: Path
    """Folder for the network that makes the maps of clips without a label."""
    log: Log


def alternate(
    first: Partner,
    second: Partner,
    *,
    params: Params,
    manifest: Path,
    split: Path,
    scratch_key: str,
) -> None:
    """Train both streams in turn and write what training and attention write for one.

    A run that was killed goes on in the step it was in.

    Args:
        first: trains first in each round (the spatial stream).
        second: trains with the first one's maps.
        params: all parameters; `systems.two_stream.alternation.rounds` rounds.
        manifest: folder with `clips.csv` and `classes.csv`.
        split: `<split_id>.csv`.
        scratch_key: `<stage>/<hash>`, where unfinished rounds are kept.

    Raises:
        InputError: fewer epochs than rounds; what training and extraction refuse.
    """
    rounds = params.system(SYSTEM).alternation.rounds
    shares = {one.name: parts(one.row.train.epochs, rounds, one.name) for one in (first, second)}
    newest: dict[str, Path] = {}  # stream -> the folder of its last step
    for number in range(rounds):
        for own, other in ((first, second), (second, first)):
            step = files.scratch(scratch_key) / f"{number}-{own.name}"
            if not ((step / "maps").is_dir() and (step / "network").is_dir()):
                _step(
                    own,
                    step,
                    params=params,
                    manifest=manifest,
                    split=split,
                    part=shares[own.name][number],
                    before=newest.get(own.name),
                    maps=newest[other.name] / "maps" if other.name in newest else None,
                    scratch_key=f"{scratch_key}/{number}-{own.name}-training",
                )
            newest[own.name] = step
    for own in (first, second):
        steps = [files.scratch(scratch_key) / f"{n}-{own.name}" for n in range(rounds)]
        _publish(own, steps)
    resume.discard(scratch_key)


def parts(num_epochs: int, rounds: int, name: str) -> list[range]:
    """The epochs of each round, as even as can be.

    Raises:
        InputError: fewer epochs than rounds.
    """
    if num_epochs < rounds:
        raise InputError(
            f"expected at least an epoch a round, got rows.{name}.train.epochs={num_epochs} and "
            f"alternation.rounds={rounds}"
        )
    edges = [number * num_epochs // rounds for number in range(rounds + 1)]
    return [range(*edge) for edge in itertools.pairwise(edges)]


def _step(
    own: Partner,
    step: Path,
    *,
    params: Params,
    manifest: Path,
    split: Path,
    part: range,
    before: Path | None,
    maps: Path | None,
    scratch_key: str,
) -> None:
    """Train a stream for a round, then draw its maps."""
    row = own.row if maps is not None else _without_maps(own.row)
    if not (step / "model").is_dir():
        state, history = loop.fit(
            model=network,
            row=row,
            row_name=own.name,
            params=params,
            manifest=manifest,
            split=split,
            packs=own.packs,
            scratch_key=scratch_key,
            log=own.log,
            init=None if before is None else before / "model",
            maps=maps,
            pretrained=networks.pretrained_weights(row) if before is None else None,
            part=part,
        )
        with files.atomic_dir(step / "model") as folder:
            checkpoint.save(state, folder / "model.pt")
            schedule.write_history(history, folder / "history.csv")
        resume.discard(scratch_key)
    extraction.extract(
        name=own.name,
        row=row,
        attention=params.system(SYSTEM).attention,
        manifest=manifest,
        split=split,
        packs=own.packs,
        checkpoint=step / "model",
        out=step / "maps",
        network_out=step / "network",
        seed=params.seed,
        threads=params.threads,
        maps=maps,
    )


def _without_maps(row: RowParams) -> RowParams:
    return dataclasses.replace(row, start=dataclasses.replace(row.start, maps=None))


def _publish(own: Partner, steps: Sequence[Path]) -> None:
    last = steps[-1]
    with files.atomic_dir(own.checkpoint) as folder:
        shutil.copyfile(last / "model" / "model.pt", folder / "model.pt")
    for source, out in ((last / "maps", own.maps), (last / "network", own.attention_network)):
        with files.atomic_dir(out) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True)
    epochs = [epoch for step in steps for epoch in _history(step / "model" / "history.csv")]
    schedule.write_history(epochs, own.history)


def _history(path: Path) -> list[Epoch]:
    def number(text: str) -> float | None:
        return float(text) if text else None

    with path.open(encoding="utf-8", newline="") as file:
        return [
            Epoch(
                epoch=int(row["epoch"]),
                lr=float(row["lr"]),
                train_loss=float(row["train_loss"]),
                train_accuracy=float(row["train_accuracy"]),
                val_loss=number(row["val_loss"]),
                val_accuracy=number(row["val_accuracy"]),
            )
            for row in csv.DictReader(file)
        ]
