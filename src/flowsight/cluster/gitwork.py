"""Git as a worker uses it: one mirror of the repository, a work tree per task.

The mirror is fetched only when a revision is not there yet, so forty tasks of a run cost the git
server one fetch per worker.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flowsight.cluster.workplace import Workplace
from flowsight.errors import FlowsightError, InputError, ResourceError

_IDENTITY = ("-c", "user.name=flowsight", "-c", "user.email=flowsight@localhost")
_FOLLOWS = "--receive-pack=git -c receive.denyCurrentBranch=updateInstead receive-pack"
_AWAY = (
    "could not read from remote",
    "unable to access",
    "could not resolve",
    "does not appear to be a git repository",
    "connection",
    "timed out",
    "early eof",
    "hung up",
    "repository not found",
    "cannot lock ref",
    "unable to create",
)


class RejectedError(FlowsightError):
    """The branch moved while we worked: look again and repeat."""


def git(*arguments: str, at: Path, text_in: str | None = None) -> str:
    """Output of a git command.

    Raises:
        ResourceError: the other end cannot be reached.
        FlowsightError: anything else; the message is git's last line.
    """
    done = subprocess.run(
        ["git", *_IDENTITY, *arguments],
        cwd=at,
        env={**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"},
        input=text_in,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return done.stdout.strip()
    said = done.stderr.strip() or done.stdout.strip()
    if "[rejected]" in said or "[remote rejected]" in said or "fetch first" in said:
        lines = said.splitlines()
        why = next((line.strip() for line in lines if "rejected]" in line), lines[-1])
        raise RejectedError(f"git {arguments[0]}: {why}")
    first = next((x for x in said.splitlines() if x.startswith(("fatal", "error"))), said[:300])
    if any(sign in said.lower() for sign in _AWAY):
        raise ResourceError(f"git {arguments[0]} cannot reach the repository: {first}")
    raise FlowsightError(f"git {' '.join(arguments[:2])} failed in {at}: {first}")


def mirror(place: Workplace) -> Path:
    """The bare mirror of the repository below the worker's home; made, not yet fetched."""
    path = place.home / "mirror.git"
    with _locked(place):
        if not (path / "HEAD").is_file():
            shutil.rmtree(path, ignore_errors=True)
            git("init", "-q", "--bare", str(path), at=place.home)
        git("config", "gc.auto", "0", at=path)  # objects of other tasks' trees stay
    return path


def fetch(place: Workplace) -> Path:
    """Bring every branch and tag to the mirror.

    Raises:
        ResourceError: the repository cannot be reached.
    """
    path = mirror(place)
    refs = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
    with _locked(place):
        git("fetch", "-q", "--prune", "--force", place.repo, *refs, at=path)
    return path


def resolve(place: Workplace, revision: str) -> str:
    """The commit that a branch, tag or hash names; a branch is always looked up anew.

    Raises:
        InputError: no such revision.
        ResourceError: the repository cannot be reached.
    """
    if revision.startswith("-") or not revision:
        raise InputError(f"expected a branch, tag or commit, got {revision!r}")
    path = mirror(place)
    is_hash = len(revision) == 40 and all(c in "0123456789abcdef" for c in revision)
    found = _commit(path, revision) if is_hash else None
    if found is None:
        found = _commit(fetch(place), revision)
    if found is None:
        raise InputError(
            f"expected a branch, tag or commit of {place.repo}, found no {revision!r}; push it"
        )
    return found


def _commit(path: Path, revision: str) -> str | None:
    try:
        return git("rev-parse", "--verify", "-q", f"{revision}^{{commit}}", at=path)
    except ResourceError:
        raise
    except FlowsightError:
        return None


def tip(place: Workplace, name: str) -> str | None:
    """The commit of a branch as last fetched; None if there is no such branch."""
    return _commit(mirror(place), f"refs/heads/{name}")


@contextmanager
def tree(place: Workplace, name: str, revision: str, *, keep: bool = False) -> Iterator[Path]:
    """A work tree at a revision; gone afterwards.

    Args:
        place: the worker's places.
        name: relative path below its trees; the caller sees to it that no two use one at once. One
            left by a killed task is replaced.
        revision: commit.
        keep: leave it if the block fails.
    """
    path = place.trees / name
    with in_use(place, name):
        remove_tree(place, path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(place):
            git("worktree", "add", "-q", "--detach", str(path), revision, at=mirror_path(place))
        try:
            yield path
        except BaseException:
            if not keep:
                remove_tree(place, path)
            raise
        remove_tree(place, path)


@contextmanager
def in_use(place: Workplace, name: str) -> Iterator[None]:
    """Hold a file lock, so that `gc` knows a living task's tree from a dead one's."""
    lock = place.locks / "trees" / name
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_in_use(place: Workplace, name: str) -> bool:
    """Whether a living task holds the tree of this name."""
    lock = place.locks / "trees" / name
    if not lock.exists():
        return False
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def mirror_path(place: Workplace) -> Path:
    """Where the mirror is."""
    return place.home / "mirror.git"


def remove_tree(place: Workplace, path: Path) -> None:
    """Remove a work tree, whole or half-made."""
    shutil.rmtree(path, ignore_errors=True)
    if path.parent != place.trees and path.parent.is_dir() and not any(path.parent.iterdir()):
        path.parent.rmdir()
    if mirror_path(place).is_dir():
        with _locked(place):
            git("worktree", "prune", at=mirror_path(place))


def push(place: Workplace, at: Path, name: str, commit: str = "HEAD") -> None:
    """Move a branch of the repository forward to a commit.

    Where the repository is somebody's work tree with the branch checked out, its files follow.

    Raises:
        RejectedError: it moved in between.
        InputError: it is checked out, and changes there are not committed.
        ResourceError: the repository cannot be reached.
    """
    follows = [_FOLLOWS] if Path(place.repo).is_dir() else []
    try:
        git("push", "-q", *follows, place.repo, f"{commit}:refs/heads/{name}", at=at)
    except RejectedError as error:
        if "staged changes" not in str(error):
            raise
        raise InputError(
            f"expected {place.repo}, where {name} is checked out, without changes that are not "
            f"committed, found some; commit or stash them"
        ) from None
    with _locked(place):
        git("update-ref", f"refs/heads/{name}", git("rev-parse", commit, at=at), at=at)


@contextmanager
def _locked(place: Workplace) -> Iterator[None]:
    place.locks.mkdir(parents=True, exist_ok=True)
    with (place.locks / "mirror").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
