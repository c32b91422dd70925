"""What a commit and its `dvc.lock` say: hashes of outputs, and which stages led to one."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from flowsight.cluster import gitwork
from flowsight.errors import FlowsightError, InputError
from flowsight.pipeline import dvc_yaml

Lock = Mapping[str, Mapping[str, Any]]
"""Stage -> its entry: cmd, deps, params, outs."""


def read(root: Path) -> Lock:
    """The stages of a working tree's `dvc.lock`.

    Raises:
        InputError: there is none.
    """
    path = root / "dvc.lock"
    if not path.is_file():
        raise InputError(
            f"expected {path}, found no such file; run `flowsight repro` and commit it"
        )
    content = dvc_yaml.read_yaml(path) or {}
    return dict(content.get("stages", {}))


@lru_cache(maxsize=64)
def at_commit(root: Path, commit: str) -> Lock:
    """The stages of a commit's `dvc.lock`; none where it has no such file.

    DVC keeps the entries of stages that the commit's parameters no longer have: they led nowhere,
    so they are left out.

    Raises:
        InputError: the repository does not have that commit.
    """
    check_commit(root, commit)
    with tempfile.TemporaryDirectory(prefix="flowsight-lock-") as name:
        folder = Path(name)
        for file in ("dvc.lock", "dvc.yaml", "params.yaml"):
            try:
                text = gitwork.git("show", f"{commit}:{file}", at=root)
            except FlowsightError:
                continue
            (folder / file).write_text(text + "\n")
        return declared(folder) if (folder / "dvc.lock").is_file() else {}


def declared(root: Path) -> Lock:
    """The stages of a working tree's `dvc.lock` that its `dvc.yaml` has; all where it has none.

    Raises:
        InputError: there is no lock.
    """
    found = read(root)
    try:
        stages = dvc_yaml.load(root)
    except InputError:
        return found
    return {name: entry for name, entry in found.items() if name in stages}


def check_commit(root: Path, commit: str) -> str:
    """The full hash of a commit.

    Raises:
        InputError: the repository does not have it.
    """
    command = ["git", "rev-parse", "--verify", "-q", "--end-of-options", f"{commit}^{{commit}}"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(
            f"expected the commit {commit} in {root.resolve()}, found none; `git fetch --all` "
            "brings what other clones pushed"
        )
    return done.stdout.strip()


def outs(lock: Lock) -> dict[str, str]:
    """Path -> MD5 of every output."""
    return {
        out["path"]: out["md5"]
        for entry in lock.values()
        for out in entry.get("outs", ())
        if "md5" in out
    }


def leading_to(lock: Lock, paths: Sequence[str]) -> list[str]:
    """Stages whose outputs, or what was made of them, are needed for some paths; the lock's order.

    Args:
        lock: of a commit.
        paths: outputs.
    """
    wanted, todo = set(), list(paths)
    while todo:
        path = todo.pop()
        for name, entry in lock.items():
            makes = any(dvc_yaml.overlaps(path, out["path"]) for out in entry.get("outs", ()))
            if makes and name not in wanted:
                wanted.add(name)
                todo += [dep["path"] for dep in entry.get("deps", ())]
    return [name for name in lock if name in wanted]


def makers(lock: Lock, md5: str) -> list[tuple[str, str]]:
    """Stages and paths of the outputs that have a hash."""
    return [
        (name, out["path"])
        for name, entry in lock.items()
        for out in entry.get("outs", ())
        if out.get("md5") == md5
    ]


def repository_id(root: Path) -> str:
    """What all clones of a repository share: its first commit.

    Raises:
        InputError: no git repository, or a shallow clone, which does not know.
    """
    try:
        shallow = gitwork.git("rev-parse", "--is-shallow-repository", at=root)
        first = gitwork.git("rev-list", "--max-parents=0", "HEAD", at=root)
    except FlowsightError as error:
        raise InputError(
            f"expected a git repository with a commit in {root.resolve()}: {error}"
        ) from None
    if shallow == "true":
        raise InputError(
            f"expected the whole history in {root.resolve()}, found a shallow clone; "
            "`git fetch --unshallow`"
        )
    return min(first.splitlines())
