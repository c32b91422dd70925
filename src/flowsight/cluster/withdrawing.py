"""`flowsight withdraw`: take a clip out of a data set, and say which models have learnt from it.

A person may ask for that. The clip leaves `data/raw/<dataset>.dvc` in one commit on main; its bytes
leave the stores when `flowsight gc --remote` finds that no commit kept refers to them.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flowsight import files
from flowsight.cluster import dvcwork, gitwork, processes
from flowsight.cluster.workplace import Workplace
from flowsight.errors import FlowsightError, InputError
from flowsight.pipeline import dvc_yaml

MAIN = "main"
_LEARNS = ("train", "val")
"""Weights come from one and epochs are chosen on the other."""


def withdraw(
    place: Workplace, clip: str, *, dataset: str | None = None, dry_run: bool = False
) -> dict[str, Any]:
    """Remove a clip from a data set and list the checkpoints that saw it.

    Args:
        place: the worker's places.
        clip: clip_id, `<label>/<stem>`.
        dataset: its name; None: the one that main's parameters name.
        dry_run: only say what would be done.

    Returns:
        clip, dataset, removed (paths below the data set), commit (None: dry, or gone before),
        retrain: for every checkpoint of any branch or tag whose training or validation clips it
        was among: stage, checkpoint, md5, subset, split and the branches; and dry_run.

    Raises:
        InputError: a data set that a stage makes or that DVC does not track, or no such clip.
        ResourceError: the repository or the remote cannot be reached.
    """
    _check_clip(clip)
    with processes.stoppable():
        for attempt in range(3):
            gitwork.fetch(place)
            start = gitwork.resolve(place, MAIN)
            try:
                with gitwork.tree(place, f"withdraw/{os.getpid()}", start) as tree:
                    name = _check_dataset(tree, dataset)
                    dvcwork.set_up(place, tree)
                    with dvcwork.one_process(place, tree):
                        removed = _paths(place, tree, name, clip)
                        change = removed and not dry_run
                        commit = _remove(place, tree, name, clip, removed) if change else None
                    break
            except gitwork.RejectedError:
                if attempt == 2:
                    raise
        retrain = list(_learnt(place, name, clip))
    if not removed and not retrain:
        raise InputError(f"expected a clip of {name} as <label>/<stem>, found no {clip!r}")
    _print_table(clip, removed, retrain, dry_run)
    return {
        "clip": clip,
        "dataset": name,
        "removed": removed,
        "commit": commit,
        "retrain": retrain,
        "dry_run": dry_run,
    }


def _check_clip(clip: str) -> None:
    parts = clip.split("/")
    if len(parts) != 2 or any(part in ("", ".", "..") for part in parts):
        raise InputError(f"expected a clip as <label>/<stem>, got {clip!r}")


def _check_dataset(tree: Path, dataset: str | None) -> str:
    name = str(dataset or dvc_yaml.read_yaml(tree / "params.yaml")["dataset"]["name"])
    raw = f"data/raw/{name}"
    makers = [stage.name for stage in dvc_yaml.load(tree).values() if raw in stage.outs]
    if makers:
        raise InputError(
            f"expected a data set that people bring, but {raw} is what the stage {makers[0]} "
            "makes; change its parameters"
        )
    if not (tree / f"{raw}.dvc").is_file():
        raise InputError(
            f"expected {raw}.dvc on {MAIN}, found none; only a data set that DVC tracks can lose "
            "a clip (`dvc add` it, commit and push)"
        )
    return name


def _paths(place: Workplace, tree: Path, name: str, clip: str) -> list[str]:
    """The clip's video and its ground truth, below the data set."""
    there = dvcwork.listing(place, tree, f"data/raw/{name}")
    wanted = {clip, f"videos/{clip}", f"truth/{clip}"}
    return sorted(path for path in there if path.rpartition(".")[0] in wanted)


def _remove(place: Workplace, tree: Path, name: str, clip: str, removed: list[str]) -> str:
    raw = f"data/raw/{name}"
    # only these are fetched, for their size; the folder's list is all that changes
    dvcwork.transfer(place, tree, "pull", *(f"{raw}/{path}" for path in removed))
    size = sum((tree / raw / path).stat().st_size for path in removed)
    content = dvcwork.listing(place, tree, raw)
    rest = {path: md5 for path, md5 in content.items() if path not in removed}
    if not rest:
        raise InputError(f"expected {raw} to keep some file, but {clip} is all it has")
    _rewrite(tree, raw, rest, size)
    dvcwork.transfer(place, tree, "push", f"{raw}.dvc")
    gitwork.git("add", f"{raw}.dvc", at=tree)
    listed = "\n".join(removed)
    gitwork.git("commit", "-q", "-F", "-", at=tree, text_in=f"{name}: withdraw {clip}\n\n{listed}")
    gitwork.push(place, tree, MAIN)
    return gitwork.git("rev-parse", "HEAD", at=tree)


def _rewrite(tree: Path, raw: str, rest: Mapping[str, str], removed_bytes: int) -> None:
    """Put the folder's new list into DVC's cache and its hash into the `.dvc` file.

    DVC itself can add to a folder that is not there, but takes nothing out of it.
    """
    from dvc.config import Config
    from dvc.utils.serialize import modify_yaml

    entries = [{"md5": rest[path], "relpath": path} for path in sorted(rest)]
    text = json.dumps(entries, sort_keys=True).encode()
    md5 = hashlib.md5(text, usedforsecurity=False).hexdigest()
    cache = Path(Config(str(tree / ".dvc"))["cache"]["dir"])
    with files.atomic_file(cache / "files" / "md5" / md5[:2] / f"{md5[2:]}.dir") as temporary:
        temporary.write_bytes(text)
    with modify_yaml(str(tree / f"{raw}.dvc")) as data:
        out = data["outs"][0]
        out["md5"], out["nfiles"] = f"{md5}.dir", len(rest)
        if "size" in out:
            out["size"] -= removed_bytes


def _learnt(place: Workplace, name: str, clip: str) -> Iterator[dict[str, Any]]:
    """Checkpoints of all branches and tags that had the clip among what they learn from."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    splits: dict[str, dict[str, str]] = {}
    for commit, refs in _heads(place).items():
        lock = _lock_at(place, commit)
        version = _splits_version(lock, name)
        if version is None:
            continue
        if version not in splits:
            splits[version] = _subsets(place, commit, name, clip)
        for stage, entry in lock.items():
            for split, subset in splits[version].items():
                out = _checkpoint(entry, name, split)
                if out is None or subset not in _LEARNS:
                    continue
                key = (stage, out["md5"])
                if key not in found:
                    found[key] = {
                        "stage": stage,
                        "checkpoint": out["path"],
                        "md5": out["md5"],
                        "split": split,
                        "subset": subset,
                        "refs": [],
                    }
                found[key]["refs"] = sorted({*found[key]["refs"], *refs})
    yield from (found[key] for key in sorted(found))


def _heads(place: Workplace) -> dict[str, list[str]]:
    """Commit -> branches and tags that stand there."""
    path = gitwork.mirror_path(place)
    form = "--format=%(refname:lstrip=2) %(objectname) %(*objectname)"
    heads: dict[str, list[str]] = {}
    listed = gitwork.git("for-each-ref", form, "refs/heads", "refs/tags", at=path)
    for line in listed.splitlines():
        ref, *objects = line.split()
        heads.setdefault(objects[-1], []).append(ref)
    return heads


def _lock_at(place: Workplace, commit: str) -> dict[str, Any]:
    from ruamel.yaml import YAML

    try:
        text = gitwork.git("show", f"{commit}:dvc.lock", at=gitwork.mirror_path(place))
    except FlowsightError:  # no lock there
        return {}
    return dict((YAML(typ="safe").load(text) or {}).get("stages", {}))


def _splits_version(lock: Mapping[str, Any], name: str) -> str | None:
    outs = [out for entry in lock.values() for out in entry.get("outs", [])]
    return next((out["md5"] for out in outs if out["path"] == f"data/splits/{name}"), None)


def _subsets(place: Workplace, commit: str, name: str, clip: str) -> dict[str, str]:
    """Split id -> subset of the clip, in the splits of a commit."""
    with gitwork.tree(place, f"withdraw/{os.getpid()}", commit) as tree:
        dvcwork.set_up(place, tree)
        dvcwork.transfer(place, tree, "pull", f"data/splits/{name}")
        found = {}
        for path in sorted((tree / "data" / "splits" / name).glob("*.csv")):
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    if row["clip_id"] == clip:
                        found[path.stem] = row["subset"]
        return found


def _checkpoint(entry: Mapping[str, Any], name: str, split: str) -> Mapping[str, Any] | None:
    """The checkpoint that a stage has learnt on a split, if it has."""
    if not any(dep["path"] == f"data/splits/{name}/{split}.csv" for dep in entry.get("deps", [])):
        return None
    outs = (out for out in entry.get("outs", []) if out["path"].startswith("checkpoints/"))
    return next(outs, None)


def _print_table(
    clip: str, removed: list[str], retrain: list[dict[str, Any]], dry_run: bool
) -> None:
    verb = "would be removed" if dry_run else "removed"
    print(f"{clip}: {', '.join(removed) or 'nothing'} {verb}", file=sys.stderr)
    if not retrain:
        print("no checkpoint of any branch or tag has learnt from it", file=sys.stderr)
        return
    print("to be trained again:", file=sys.stderr)
    rows = [("stage", "split", "subset", "branches and tags")]
    rows += [(one["stage"], one["split"], one["subset"], ", ".join(one["refs"])) for one in retrain]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  " + "  ".join(cells).rstrip(), file=sys.stderr)
