"""Where a bundle's content comes from in the repository: classes, fusion weight, DVC's hashes."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowsight import files
from flowsight.errors import InputError


@dataclass(frozen=True)
class Weight:
    """Share of the spatial stream in the fusion, and where it comes from."""

    value: float
    source: str
    """`validation` or `default`, see `metrics.fusion`."""


def locked_outs(path: Path) -> dict[str, str]:
    """Path -> md5 of every output that `dvc.lock` knows; folders end with `.dir`.

    Returns:
        Empty where there is no such file.

    Raises:
        InputError: not YAML.
    """
    from ruamel.yaml import YAML, YAMLError

    if not path.is_file():
        return {}
    try:
        lock = YAML(typ="safe").load(path.read_text(encoding="utf-8")) or {}
        stages = lock.get("stages", {}).values()
        return {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", [])}
    except (YAMLError, AttributeError, KeyError, TypeError) as error:
        raise InputError(f"expected DVC's lock in {path}, got {error}; run `dvc repro`") from None


def md5(path: Path) -> str:
    """What DVC calls this file, or this folder (with `.dir`)."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    entries = [
        {"md5": md5(file), "relpath": file.relative_to(path).as_posix()}
        for file in path.rglob("*")
        if file.is_file()
    ]
    entries.sort(key=lambda entry: entry["relpath"])
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest() + ".dir"


def check_fresh(root: Path, out: str, lock: Mapping[str, str]) -> None:
    """Refuse an output that is not the one `dvc.lock` knows.

    Raises:
        InputError: missing, unknown or changed.
    """
    if not (root / out).exists():
        raise InputError(f"expected {root / out}, found nothing; run `flowsight repro`")
    if out not in lock:
        raise InputError(
            f"expected {out} in {root / 'dvc.lock'}, found none; run `flowsight repro`"
        )
    found = md5(root / out)
    if found != lock[out]:
        raise InputError(
            f"expected {out} as dvc.lock knows it ({lock[out]}), got {found}; "
            "run `flowsight repro` or `dvc checkout`"
        )


def describe(root: Path, folder: str, lock: Mapping[str, str], *, check: bool) -> dict[str, Any]:
    """Path and hashes of the checkpoint in a folder.

    Returns:
        path (of `model.pt`, relative to the repository), md5 and sha256 of the file, stage_md5 (of
        the folder, by `dvc.lock`; null where that does not know it).

    Raises:
        InputError: no checkpoint; with `check` also one that is stale.
    """
    path = root / folder / "model.pt"
    if not path.is_file():
        raise InputError(
            f"expected a checkpoint in {path}, found no such file; run `flowsight repro` or "
            "`dvc pull`"
        )
    if check:
        check_fresh(root, folder, lock)
    return {
        "path": f"{folder}/model.pt",
        "md5": md5(path),
        "sha256": files.sha256(path),
        "stage_md5": lock.get(folder),
    }


def read_classes(manifest: Path) -> list[str]:
    """Class names in index order.

    Raises:
        InputError: no such table.
    """
    rows = _table(manifest / "classes.csv", {"index", "label"})
    return [row["label"] for row in sorted(rows, key=lambda row: int(row["index"]))]


def read_weight(path: Path, fusion: str, split: str, steps: int) -> Weight:
    """The fusion weight that evaluation chose on the validation clips.

    Args:
        path: `results/<system>/per_split.csv`.
        fusion: its name in `evaluate.fusions`.
        split: split id.
        steps: the weights evaluation tries are k / steps; the table rounds them.

    Raises:
        InputError: no such table or row.
    """
    for row in _table(path, {"fusion", "split_id", "stream", "weight", "weight_source"}):
        if (row["fusion"], row["split_id"], row["stream"]) == (fusion, split, "spatial"):
            value, source = float(row["weight"]), row["weight_source"]
            exact = round(value * steps) / steps if source == "validation" else value
            return Weight(value=exact, source=source)
    raise InputError(
        f"expected fusion {fusion} of split {split} in {path}, found none; run `flowsight repro`"
    )


def _table(path: Path, columns: set[str]) -> list[dict[str, str]]:
    if not path.is_file():
        raise InputError(f"expected a table in {path}, found no such file; run `flowsight repro`")
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if not columns <= set(reader.fieldnames or ()):
            raise InputError(f"expected columns {', '.join(sorted(columns))} in {path}")
        return list(reader)
