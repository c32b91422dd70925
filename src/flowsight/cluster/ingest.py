"""`flowsight ingest`: new videos from a drop folder into a data set that DVC tracks.

A drop folder holds `<label>/<file>`. Sound videos become one commit of `data/raw/<dataset>.dvc` on
main; only when that is pushed do they leave the drop folder, so a kill loses nothing, and the next
call finds what is stored already and only clears it away. Broken ones go to `quarantine/` beside
the labels, each with its reason in a text file. The data set itself is not downloaded: DVC adds
files to a folder by their hashes.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowsight.cluster import dvcwork, gitwork, processes
from flowsight.cluster.drops import Drop, Dropped, open_drop
from flowsight.cluster.workplace import Workplace
from flowsight.datasets.clips.manifest import load_adapter
from flowsight.datasets.layout import VIDEO_SUFFIXES, check_name
from flowsight.errors import InputError
from flowsight.pipeline import dvc_yaml

MAIN = "main"
_OPEN = ("folder", "weizmann")
"""Adapters that find clips by looking; the others have official lists, which know no new clip."""


@dataclass
class _Sorted:
    """What is to be done with the files of a drop folder."""

    added: dict[str, Dropped] = field(default_factory=dict)
    """Path below the data set -> file."""
    known: list[Dropped] = field(default_factory=list)
    """Content that the data set has already."""
    quarantined: dict[Dropped, str] = field(default_factory=dict)
    """File -> reason."""


def ingest(
    place: Workplace, drop: str, *, dataset: str | None = None, run_id: str | None = None
) -> dict[str, Any]:
    """Take the videos of a drop folder into a data set.

    Args:
        place: the worker's places.
        drop: folder, or fsspec URL as s3://bucket/prefix, with `<label>/<file>`.
        dataset: its name; None: the one that main's parameters name.
        run_id: for the commit's message.

    Returns:
        added (paths below the data set), quarantined (file -> reason), duplicates (files whose
        content was there) and commit (None where nothing was added).

    Raises:
        InputError: a data set that a stage makes, or one with official lists; no drop folder.
        ResourceError: the repository, the remote or the drop folder cannot be reached.
    """
    with processes.stoppable(), tempfile.TemporaryDirectory(dir=place.home) as scratch:
        source = open_drop(drop, Path(scratch))
        waiting = source.files()
        for attempt in range(3):
            gitwork.fetch(place)
            start = gitwork.resolve(place, MAIN)
            with gitwork.tree(place, f"ingest/{os.getpid()}", start) as tree:
                name, adapter = _check_dataset(tree, dataset)
                dvcwork.set_up(place, tree)
                try:
                    with dvcwork.one_process(place, tree):
                        plan = _sort(waiting, _listing(place, tree, name), adapter)
                        commit = _add(place, tree, name, plan, run_id) if plan.added else None
                    break
                except gitwork.RejectedError:
                    if attempt == 2:
                        raise
        _clear(source, plan)
    return {
        "added": sorted(plan.added),
        "quarantined": {one.name: reason for one, reason in sorted(plan.quarantined.items())},
        "duplicates": sorted(one.name for one in plan.known),
        "commit": commit,
    }


def _check_dataset(tree: Path, dataset: str | None) -> tuple[str, str]:
    """Name and adapter of the data set, which must be one that can grow."""
    params = dvc_yaml.read_yaml(tree / "params.yaml")
    name = dataset or params["dataset"]["name"]
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise InputError(f"expected a name of letters, digits, `_`, `.` and `-`, got {name!r}")
    raw = f"data/raw/{name}"
    makers = [stage.name for stage in dvc_yaml.load(tree).values() if raw in stage.outs]
    if makers:
        raise InputError(
            f"expected a data set of its own, but {raw} is what the stage {makers[0]} makes; "
            "give another one with --dataset"
        )
    group = tree / "conf" / "dataset" / f"{name}.yaml"
    if params["dataset"]["name"] == name:
        adapter = params["dataset"]["adapter"]
    elif group.is_file():
        adapter = dvc_yaml.read_yaml(group)["dataset"]["adapter"]
    else:
        adapter = "folder"
    if adapter not in _OPEN:
        raise InputError(
            f"expected a data set that can grow ({', '.join(_OPEN)}), but {name} has the official "
            f"lists of {adapter}, which know no new clip; take in under another name"
        )
    return name, adapter


def _listing(place: Workplace, tree: Path, name: str) -> dict[str, str]:
    """Path below the data set -> MD5, from DVC's list of it; nothing is downloaded."""
    if not (tree / f"data/raw/{name}.dvc").is_file():
        return {}
    return dvcwork.listing(place, tree, f"data/raw/{name}")


def _sort(waiting: list[Dropped], there: Mapping[str, str], adapter: str) -> _Sorted:
    plan = _Sorted()
    prefix = "videos/" if adapter != "folder" or any(p.startswith("videos/") for p in there) else ""
    hashes, clips = set(there.values()), {_clip_of(path) for path in there}
    for one in waiting:
        reason = one.problem or _name_problem(one)
        if reason is None:
            # DVC knows files by MD5; equal MD5 is one object in its store
            digest = _md5(one.local)
            if digest in hashes:
                plan.known.append(one)
                continue
            path = prefix + one.name
            reason = _content_problem(one, adapter)
            if reason is None and _clip_of(path) in clips:
                reason = "another video has this name"
        if reason is not None:
            plan.quarantined[one] = reason
        elif one.is_as_found():
            plan.added[path] = one
            hashes.add(digest)
            clips.add(_clip_of(path))
        else:
            print(f"{one.name}: still being written; left for the next time", file=sys.stderr)
    return plan


def _clip_of(path: str) -> str:
    return path.rpartition(".")[0]


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _name_problem(one: Dropped) -> str | None:
    parts = one.name.split("/")
    if len(parts) != 2:
        return "expected <label>/<file>"
    if Path(parts[1]).suffix.lower() not in VIDEO_SUFFIXES:
        return f"expected one of {', '.join(VIDEO_SUFFIXES)}"
    try:
        for part in parts:
            check_name(part, "the drop folder")
    except InputError as error:
        return str(error)
    return None


def _content_problem(one: Dropped, adapter: str) -> str | None:
    from flowsight.video.probe import UnreadableVideo, probe

    try:
        probe(one.local)
    except UnreadableVideo as error:
        return " ".join(error.reason.split())
    if adapter == "folder":
        return None
    with tempfile.TemporaryDirectory() as folder:  # does the layout take a file of this name?
        path = Path(folder) / "videos" / one.name
        path.parent.mkdir(parents=True)
        path.touch()
        try:
            load_adapter(adapter).find_clips(Path(folder))
        except InputError as error:
            return str(error).replace(folder, "")
    return None


def _add(place: Workplace, tree: Path, name: str, plan: _Sorted, run_id: str | None) -> str:
    raw = tree / "data" / "raw" / name
    for path, one in plan.added.items():
        (raw / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(one.local, raw / path)
    tracked = raw.with_name(f"{name}.dvc")
    targets = [f"data/raw/{name}/{path}" for path in plan.added] if tracked.exists() else [raw]
    for first in range(0, len(targets), 500):  # a command line has an end
        chunk = [str(target) for target in targets[first : first + 500]]
        done = dvcwork.dvc(place, tree, "add", *chunk)
        if done.code:
            raise InputError(f"dvc add failed: {dvcwork.last_error(done)}")
    dvcwork.transfer(place, tree, "push", str(tracked.relative_to(tree)))
    gitwork.git("add", "data/raw", at=tree)
    origin = f" (run {run_id})" if run_id else ""
    listed = "\n".join(sorted(plan.added))
    message = f"{name}: {len(plan.added)} new clips{origin}\n\n{listed}"
    gitwork.git("commit", "-q", "-F", "-", at=tree, text_in=message)
    gitwork.push(place, tree, MAIN)
    return gitwork.git("rev-parse", "HEAD", at=tree)


def _clear(source: Drop, plan: _Sorted) -> None:
    for one in [*plan.added.values(), *plan.known]:
        source.remove(one)
    for one, reason in plan.quarantined.items():
        print(f"{one.name}: quarantined: {reason}", file=sys.stderr)
        source.quarantine(one, reason)
