"""Where a run comes from: the commit, and the data set by DVC's hash."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowsight.pipeline import dvc_yaml


def commit() -> dict[str, str]:
    """Tags of the commit worked at, and whether something was changed since; none without git."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        changed = bool(git("status", "--porcelain", "--untracked-files=no"))
        return {"mlflow.source.git.commit": git("rev-parse", "HEAD"), "git.changed": str(changed)}
    except (OSError, subprocess.SubprocessError):
        return {}


def datasets(tags: Mapping[str, str], root: Path = Path()) -> list[dict[str, str]]:
    """The data set and the splits of a run, with DVC's hashes as `dvc.lock` has them.

    Args:
        tags: of the run: `dataset`, `split`.
        root: the work tree.

    Returns:
        name, path, digest and context of each; nothing where `dvc.lock` does not know it.
    """
    name, split = tags.get("dataset"), tags.get("split")
    hashes = _hashes(root) if name else {}
    wanted = [
        (name, f"data/raw/{name}", "training"),
        (f"{name}-splits", f"data/splits/{name}", f"split {split}"),
    ]
    return [
        {"name": str(known_as), "path": path, "digest": hashes[path], "context": context}
        for known_as, path, context in wanted
        if path in hashes
    ]


def _hashes(root: Path) -> dict[str, str]:
    """Path -> hash of all that stages read and wrote; what they wrote counts."""
    try:
        lock: Any = dvc_yaml.read_yaml(root / "dvc.lock")
        entries = list(lock["stages"].values())
    except Exception:  # none, half written, or of another DVC: the run goes without
        return {}
    return {
        item["path"]: item["md5"]
        for key in ("deps", "outs")
        for entry in entries
        for item in entry.get(key, ())
        if "md5" in item
    }
