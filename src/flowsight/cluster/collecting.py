"""`flowsight gc`: remove what no branch, tag, registered model or living run needs.

Removed: work trees of dead tasks, run branches, fragments and scratch of runs that were gathered
and then left alone for some days, and the objects of DVC's cache (and remote) that nothing kept
refers to. A run that was never gathered is kept, with all that its fragments refer to.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flowsight.cluster import dvcwork, fragments, gathering, gitwork, processes, workplace
from flowsight.cluster.workplace import Workplace
from flowsight.errors import FlowsightError, InputError, ResourceError

_DAY_SEC = 86400.0
_REMOVED = re.compile(r"^(Removed|Would remove) \d+ objects")


def collect(
    place: Workplace, *, keep_days: float = 30, remote: bool = False, dry_run: bool = False
) -> dict[str, Any]:
    """Remove what is not needed any more.

    Args:
        place: the worker's places.
        keep_days: runs younger than this stay.
        remote: clean the DVC remote too, not only this worker's cache.
        dry_run: only say what would go.

    Returns:
        removed (list of what and bytes, where known), bytes (their sum) and dry_run.

    Raises:
        InputError: a negative number of days.
        ResourceError: a run is under way whose objects nobody refers to yet; or no connection.
    """
    if keep_days < 0:
        raise InputError(f"expected --keep-days from 0, got {keep_days:g}")
    with processes.stoppable():
        gitwork.fetch(place)
        removed = [*_trees(place, dry_run)]
        old = _finished_runs(place, keep_days)
        kept = [run for run in fragments.store(place).names() if run not in old]
        _check_quiet(place, kept)
        for run_id in old:
            removed.append(_remove_run(place, run_id, dry_run))
        removed += _old_scratch(place, keep_days, dry_run)
        removed += _objects(place, kept, old, remote=remote, dry_run=dry_run)
    for one in removed:
        verb = "would remove" if dry_run else "removed"
        print(f"{verb} {one['what']} ({one['bytes'] / 1e6:.1f} MB)", file=sys.stderr)
    return {"removed": removed, "bytes": sum(one["bytes"] for one in removed), "dry_run": dry_run}


def _trees(place: Workplace, dry_run: bool) -> Iterator[dict[str, Any]]:
    """Work trees of dead tasks."""
    for path in sorted(place.trees.glob("*/*")):
        name = path.relative_to(place.trees).as_posix()
        if not gitwork.is_in_use(place, name):
            size = _size(path)
            if not dry_run:
                gitwork.remove_tree(place, path)
            yield {"what": f"work tree {name}", "bytes": size}
    for lock in () if dry_run else (place.locks / "trees").glob("*/*"):
        old = time.time() - lock.stat().st_mtime > _DAY_SEC
        if old and not gitwork.is_in_use(place, lock.relative_to(place.locks / "trees").as_posix()):
            lock.unlink(missing_ok=True)


def _size(path: Path) -> int:
    """Bytes of its own: a file that DVC's cache shares by a hard link frees nothing."""
    total = 0
    for parent, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                stat = (Path(parent) / name).lstat()
                total += stat.st_size if stat.st_nlink == 1 else 0
    return total


def _finished_runs(place: Workplace, keep_days: float) -> list[str]:
    """Runs that were gathered, and neither their branch nor their fragments changed lately."""
    path = gitwork.mirror_path(place)
    form = "--format=%(refname:lstrip=3) %(committerdate:unix)"
    found = []
    for line in gitwork.git("for-each-ref", form, "refs/heads/runs/", at=path).splitlines():
        run_id, _, changed = line.rpartition(" ")
        marks = ("log", "-1", f"--grep=^{gathering.MARK}: ", "--format=%H")
        gathered = gitwork.git(*marks, f"refs/heads/runs/{run_id}", at=path)
        newest = max(float(changed), fragments.store(place).newest(run_id) or 0.0)
        if gathered and time.time() - newest >= keep_days * _DAY_SEC:
            found.append(run_id)
    return found


def _check_quiet(place: Workplace, runs: list[str]) -> None:
    """Refuse while a stage is under way: what it has pushed is not referred to yet."""
    store = fragments.store(place)
    for run_id in runs:
        leases = [name for name in store.names(run_id) if name.endswith(".lease")]
        if leases:
            stage = leases[0].removesuffix(".lease")
            raise ResourceError(
                f"expected no stage under way, but {stage} of run {run_id} has a lease; wait "
                f"until it is done, or remove {place.runs}/{run_id}/{leases[0]} if its worker died"
            )


def _remove_run(place: Workplace, run_id: str, dry_run: bool) -> dict[str, Any]:
    own = (place.scratch, place.locks, place.locks / "trees", place.home / "results")
    places = [folder / run_id for folder in own]
    size = sum(_size(path) for path in places)
    if "://" not in place.runs:
        size += _size(Path(place.runs) / run_id)
    if not dry_run:
        workplace.check_run_id(run_id)
        fragments.store(place).remove(run_id)
        for path in places:
            shutil.rmtree(path, ignore_errors=True)
        # the branch last: without it the run would not be found again
        mirror = gitwork.mirror_path(place)
        gitwork.git("push", "-q", place.repo, f":refs/heads/runs/{run_id}", at=mirror)
        gitwork.git("update-ref", "-d", f"refs/heads/runs/{run_id}", at=mirror)
    return {"what": f"run {run_id}: branch, fragments, scratch, results", "bytes": size}


def _old_scratch(place: Workplace, keep_days: float, dry_run: bool) -> Iterator[dict[str, Any]]:
    """States of trainings that nobody went on with."""
    for state in sorted(place.scratch.glob("*/*/last.ckpt")):
        if time.time() - state.stat().st_mtime >= keep_days * _DAY_SEC:
            folder = state.parent
            size = _size(folder)
            if not dry_run:
                shutil.rmtree(folder, ignore_errors=True)
            yield {"what": f"scratch {folder.relative_to(place.scratch)}", "bytes": size}


def _objects(
    place: Workplace, kept: list[str], old: list[str], *, remote: bool, dry_run: bool
) -> Iterator[dict[str, Any]]:
    """Let DVC remove objects that no kept commit refers to."""
    with _clone(place, old) as clone:
        commits = [*_kept_runs(place, clone, kept), *_registered(clone)]
        for i, commit in enumerate(commits):
            gitwork.git("tag", "-f", f"flowsight-keep-{i}", commit, at=clone)
        cache, before = _cache_folder(clone), 0
        before = _size(cache)
        command = ["gc", "--all-branches", "--all-tags", "--force"]
        command += ["--cloud"] if remote else []
        done = dvcwork.dvc(place, clone, *command, *(["--dry"] if dry_run else []))
        if done.code:
            raise ResourceError(f"dvc gc failed: {dvcwork.last_error(done)}")
        said = "; ".join(line for line in done.lines if "objects" in line or "unused" in line)
        if said:
            size = 0 if dry_run else before - _size(cache)
            yield {"what": f"objects of DVC ({said})", "bytes": size}


@contextmanager
def _clone(place: Workplace, without: list[str]) -> Iterator[Path]:
    """A clone with all branches that stay, as `dvc gc` looks at the repository it is in."""
    name = f"gc/{os.getpid()}"
    path, source = place.trees / name, str(gitwork.mirror_path(place))
    with gitwork.in_use(place, name):
        shutil.rmtree(path, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            gitwork.git("clone", "-q", "--no-checkout", source, str(path), at=place.home)
            gitwork.git("checkout", "-q", "--detach", gitwork.resolve(place, "main"), at=path)
            gitwork.git("fetch", "-q", "origin", "+refs/heads/*:refs/heads/*", at=path)
            for run_id in without:
                with suppress(FlowsightError):
                    gitwork.git("update-ref", "-d", f"refs/heads/runs/{run_id}", at=path)
            dvcwork.set_up(place, path)
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def _kept_runs(place: Workplace, clone: Path, runs: list[str]) -> Iterator[str]:
    """Commits that refer to what the fragments of kept runs refer to."""
    for run_id in runs:
        names = [
            name.removesuffix(".yaml")
            for name in fragments.store(place).names(run_id)
            if name.endswith(".yaml")
        ]
        found = [one for name in names if (one := fragments.load(place, run_id, name)) is not None]
        for rev in sorted({one.rev for one in found}):
            gitwork.git("checkout", "-q", "--force", "--detach", rev, at=clone)
            entries = {one.stage: one.entry for one in found if one.rev == rev}
            dvcwork.write_lock(clone, entries, add=True)
            gitwork.git("add", "dvc.lock", at=clone)
            gitwork.git("commit", "-q", "--allow-empty", "-m", f"keep {run_id}", at=clone)
            yield gitwork.git("rev-parse", "HEAD", at=clone)


def _registered(clone: Path) -> Iterator[str]:
    """Commits of registered model versions (tag `git_commit`), where there is a registry."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        return
    from flowsight import tracking

    for commit in tracking.registered_commits(uri):
        try:
            yield gitwork.git("rev-parse", "--verify", f"{commit}^{{commit}}", at=clone)
        except FlowsightError:
            print(f"warning: no commit {commit} of a registered model here", file=sys.stderr)


def _cache_folder(clone: Path) -> Path:
    from dvc.config import Config

    folder = Config(str(clone / ".dvc"))["cache"].get("dir")
    return Path(folder) if folder else clone / ".dvc" / "cache"
