"""Whether the working tree is what its commit and its `dvc.lock` say, before it is registered."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from flowsight.cluster import gitwork, processes
from flowsight.errors import FlowsightError, InputError
from flowsight.pipeline import dvc_yaml, running
from flowsight.registry import locks
from flowsight.serving import origin

_MATTERS = ("dvc.lock", "dvc.yaml", "params.yaml", "src", "stages", "data/raw", "data/weights")
_VERDICT = re.compile(r"^(?:Stage '(?P<same>[^']+)' didn't change|Running stage '(?P<runs>[^']+)')")


def check(root: Path, stage: str, paths: Iterable[str]) -> str:
    """Refuse what nobody could find again: changes that are not committed, results out of date.

    Args:
        root: the repository.
        stage: all that leads to it must be up to date.
        paths: outputs that are read; each must be the one that `dvc.lock` knows.

    Returns:
        The commit.

    Raises:
        InputError: naming what differs, and the command that puts it right.
    """
    commit = _check_committed(root)
    known = locks.outs(locks.read(root))
    for path in paths:
        origin.check_fresh(root, path, known)
    _check_up_to_date(root, stage)
    return commit


def _check_committed(root: Path) -> str:
    there = [path for path in _MATTERS if (root / path).exists()]
    try:
        changed = gitwork.git("status", "--porcelain", "--", *there, at=root).splitlines()
        commit = gitwork.git("rev-parse", "HEAD", at=root)
    except FlowsightError as error:
        raise InputError(
            f"expected a git repository with a commit in {root.resolve()}: {error}"
        ) from None
    if changed:
        names = ", ".join(line.strip().partition(" ")[2].strip() for line in changed[:4])
        more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
        raise InputError(
            f"expected a committed state in {root.resolve()}, found changes of {names}{more}; "
            "commit them, so that the model can be traced to a commit"
        )
    return commit


def _check_up_to_date(root: Path, stage: str) -> None:
    """Ask DVC, which takes what is not on this machine as `dvc.lock` has it."""
    stages, lock = dvc_yaml.load(root), locks.read(root)
    if stage not in stages:
        raise InputError(f"expected the stage {stage} in dvc.yaml, found none")
    needed = _before(stages, stage)
    unknown = [name for name in needed if name not in lock]
    if unknown:
        raise InputError(
            f"expected {', '.join(unknown)} in dvc.lock, found no entry; run `flowsight repro` and "
            "commit dvc.lock"
        )
    command = ["dvc", "repro", "--allow-missing", "--dry", stage]
    done = processes.run(command, cwd=root, env=running.environment(), quiet=True)
    if done.code:
        raise FlowsightError(f"dvc repro --dry failed in {root}: {' '.join(done.lines[-1:])[:300]}")
    again = [m["runs"] for line in done.lines if (m := _VERDICT.match(line)) and m["runs"]]
    if again:
        raise InputError(
            f"expected results that are up to date, but {', '.join(again)} would run again; run "
            "`flowsight repro` and commit dvc.lock"
        )


def _before(stages: dict[str, dvc_yaml.Stage], stage: str) -> list[str]:
    upstream, seen, todo = dvc_yaml.upstream(stages), {stage}, [stage]
    while todo:
        for name in upstream[todo.pop()] - seen:
            seen.add(name)
            todo.append(name)
    return [name for name in stages if name in seen]
