"""Where a worker works, as its environment says, and the names that are safe in paths and refs."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

from flowsight.errors import InputError
from flowsight.files import atomic_file

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,199}")


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Places of one worker."""

    repo: str
    """Git URL or path that is cloned from and pushed to."""
    home: Path
    """`FLOWSIGHT_WORK`: mirror, trees, DVC cache and locks; several workers may share it."""
    runs: str
    """`FLOWSIGHT_RUNS`: lock fragments and leases; a folder or an fsspec URL as s3://bucket/x."""
    scratch: Path
    """`FLOWSIGHT_SCRATCH`: states of unfinished trainings, seen by all workers."""

    @property
    def trees(self) -> Path:
        """Work trees, one per run and stage."""
        return self.home / "trees"

    @property
    def locks(self) -> Path:
        """Files whose lock the system drops when their process dies."""
        return self.home / "locks"

    def identity(self) -> str:
        """A name shared by all who share `home`, so who meet at its locks."""
        path = self.home / "id"
        if not path.is_file():
            with atomic_file(path) as temporary:
                temporary.write_text(uuid.uuid4().hex)
        return path.read_text().strip()


def from_environment() -> Workplace:
    """The workplace that the environment names.

    Raises:
        InputError: no `FLOWSIGHT_REPO` and no git repository around.
    """
    default = Path.home() if os.access(Path.home(), os.W_OK) else Path(tempfile.gettempdir())
    home = Path(os.environ.get("FLOWSIGHT_WORK") or default / ".cache" / "flowsight-worker")
    home = home.absolute()
    runs = os.environ.get("FLOWSIGHT_RUNS") or str(home / "runs")
    if "://" not in runs:
        runs = str(Path(runs).absolute())
    scratch = Path(os.environ.get("FLOWSIGHT_SCRATCH") or home / "scratch").absolute()
    home.mkdir(parents=True, exist_ok=True)
    return Workplace(repo=_repository(), home=home, runs=runs, scratch=scratch)


def _repository() -> str:
    given = os.environ.get("FLOWSIGHT_REPO")
    if given:
        local = Path(given)
        return str(local.absolute()) if local.is_dir() else given
    command = ["git", "rev-parse", "--show-toplevel"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(
            f"expected FLOWSIGHT_REPO or a git repository around {Path.cwd()}, found neither; "
            "set FLOWSIGHT_REPO to the URL or the path of the repository"
        )
    return done.stdout.strip()


def check_run_id(run_id: str) -> str:
    """Refuse a run id that is no plain name for a git branch and a folder.

    Raises:
        InputError: it is not.
    """
    plain = _RUN_ID.fullmatch(run_id) and ".." not in run_id
    if not plain or run_id.endswith((".", ".lock")):
        proposal = re.sub(r"[^A-Za-z0-9_+=-]+", "-", run_id).strip("-_+=")[:200] or "run-1"
        raise InputError(
            "expected a run id of letters, digits, `.`, `_`, `+`, `=` and `-` (it names a git "
            f"branch and a folder), got {run_id!r}; for example {proposal}"
        )
    return run_id


def branch(run_id: str) -> str:
    """The branch of a run."""
    return f"runs/{check_run_id(run_id)}"
