"""What a stage script is asked to do, from its command line as `dvc.yaml` writes it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flowsight import contract
from flowsight.contract import Folders, Job
from flowsight.errors import InputError
from flowsight.params import config
from flowsight.params.config import Params
from flowsight.pipeline import dvc_yaml


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A stage instance of a system as a whole."""

    system: str
    params: Params
    folders: Folders
    out: Path
    """Folder to replace."""


def of_row(doc: str | None, arguments: Sequence[str] | None = None) -> Job:
    """The job of `python stages/<verb>.py SYSTEM ROW SPLIT --<folder> PATH ... --out PATH`.

    Args:
        doc: the script's own, for `--help`.
        arguments: those of the command line; None: this process's.

    Raises:
        InputError: no such system, or an option without a value.
    """
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("system", choices=contract.names())
    parser.add_argument("row_name", metavar="row", help="of systems.SYSTEM.rows in params.yaml")
    parser.add_argument("split", help="its id")
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    parser.add_argument("--stage", default="", help="name in dvc.yaml, as train@spatial-1")
    known, rest = parser.parse_known_args(arguments)
    given = vars(known)
    stage = given.pop("stage")
    key = f"{stage}/{dvc_yaml.stage_key(stage)}" if stage else ""
    return Job(**given, params=config.load(), folders=_folders(rest), scratch_key=key)


def of_system(doc: str | None, arguments: Sequence[str] | None = None) -> Whole:
    """The job of `python stages/<verb>.py SYSTEM --<folder> PATH ... --out PATH`.

    Args, Raises: as `of_row`.
    """
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("system", choices=contract.names())
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    known, rest = parser.parse_known_args(arguments)
    return Whole(**vars(known), params=config.load(), folders=_folders(rest))


def _folders(options: Sequence[str]) -> Folders:
    """`--split-file PATH` as `split_file`: PATH."""
    names, paths = options[::2], options[1::2]
    if len(names) != len(paths) or not all(name.startswith("--") for name in names):
        raise InputError(f"expected options as --<folder> PATH, got {' '.join(options)}")
    return Folders({n[2:].replace("-", "_"): Path(p) for n, p in zip(names, paths, strict=True)})
