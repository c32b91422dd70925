"""What a training tells MLflow: parameters, metrics, where it came from.

A training writes lines to a file of its own (`spool`), and another process brings them to MLflow
(`sending`). So training neither waits the four seconds that MLflow takes to load, nor for a slow
server, nor fails with it. What a server that is away did not get stays on disk until it is sent: by
the same process when the server is back, by the next training, or by `flowsight tracking send`. A
training that is killed leaves a run marked as killed.

Environment: `MLFLOW_TRACKING_URI` (default: `mlflow.db` in the repository);
`FLOWSIGHT_TRACKING=off` records nothing; `FLOWSIGHT_RUN_ID` names the run of the pipeline that the
run belongs to; `FLOWSIGHT_SCRATCH` is where the files lie (default: `build/scratch`).
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowsight.errors import ResourceError
from flowsight.pipeline import warm
from flowsight.tracking import origin, place, sending
from flowsight.tracking.place import EXPERIMENT, tracking_uri
from flowsight.tracking.spool import Spool

__all__ = ["EXPERIMENT", "Log", "flatten", "is_off", "registered_commits", "run", "tracking_uri"]

_WAIT_SEC = 120.0
"""How long a finished training waits for its last lines to be stored by a store that is slow."""
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=:-]{0,199}")
_UNKEPT = (OSError, TypeError, ValueError)
"""A full disk, a value that is no number."""

Log = Callable[[Mapping[str, float], int], None]


@contextmanager
def run(
    name: str, *, params: Mapping[str, Any], tags: Mapping[str, str], wait_sec: float = _WAIT_SEC
) -> Iterator[Log]:
    """Record a run while the block works.

    Nothing that goes wrong with the tracker reaches the block: one line on stderr says it.

    Args:
        name: of the run.
        params: plain values; nested mappings become dotted names.
        tags: dataset, stage, stage hash, ...; the git commit is added.
        wait_sec: how long to wait in the end for the last values to be stored.

    Yields:
        log(metrics, step).
    """
    kept = None if is_off() else _open(name, params, tags)
    if kept is None:
        yield _no_log
        return
    tracker = _start(kept.path)
    status = "FAILED"
    try:
        yield _logger(kept)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        try:
            kept.close(status)
        except OSError as error:
            _say_unkept(kept.path, error)
        _wait(tracker, kept.path, wait_sec)


def is_off() -> bool:
    """Whether nothing is recorded: asked for, or one of several processes of a training."""
    ranks = (os.environ.get(name, "0") for name in ("RANK", "LOCAL_RANK", "NODE_RANK"))
    return os.environ.get("FLOWSIGHT_TRACKING", "").lower() == "off" or any(
        rank not in ("", "0") for rank in ranks
    )


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted names and text: {"train": {"lr": 0.1}} to {"train.lr": "0.1"}."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = str(value)
    return flat


def registered_commits(uri: str) -> list[str]:
    """Commits that the versions of registered models came from (their tag `git_commit`).

    Args:
        uri: of the tracking server or store.

    Raises:
        ResourceError: the registry cannot be read; nothing may be taken for unneeded then.
    """
    try:
        from mlflow import MlflowClient

        versions = MlflowClient(tracking_uri=uri, registry_uri=uri).search_model_versions()
    except Exception as error:  # whatever a server or a database may raise
        reason = " ".join(str(error).split())[:200]
        raise ResourceError(f"cannot read the registry of models at {uri}: {reason}") from None
    return sorted({one.tags["git_commit"] for one in versions if one.tags.get("git_commit")})


def _open(name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> Spool | None:
    folder = place.spool_folder()
    start = {
        "name": name,
        "params": flatten(params),
        "tags": {
            "mlflow.source.name": Path(sys.argv[0]).name,
            "mlflow.source.type": "LOCAL",
            "mlflow.user": _user(),
            **origin.commit(),
            **tags,
        },
        "datasets": origin.datasets(tags),
        "uri": place.plain(tracking_uri()),
        "host": socket.gethostname(),
        "run_id": _pipeline_run(),
    }
    try:
        return Spool(folder, start)
    except _UNKEPT as error:
        _say_unkept(folder, error)
        return None


def _user() -> str:
    try:
        return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (KeyError, OSError):  # a container's user need have no name
        return str(os.getuid())


def _pipeline_run() -> str | None:
    given = os.environ.get("FLOWSIGHT_RUN_ID", "")
    return given if _RUN_ID.fullmatch(given) else None


def _say_unkept(path: Path, error: Exception) -> None:
    said = sending.in_one_line(error)
    print(f"tracking: cannot keep {path}: {said}; the work goes on without", file=sys.stderr)


def _no_log(metrics: Mapping[str, float], step: int) -> None:
    pass


def _logger(kept: Spool) -> Log:
    has_told = False

    def log(metrics: Mapping[str, float], step: int) -> None:
        nonlocal has_told
        try:
            kept.log(metrics, step)
        except _UNKEPT as error:
            if not has_told:
                has_told = True
                _say_unkept(kept.path, error)

    return log


def _start(path: Path) -> subprocess.Popen[bytes] | None:
    with contextlib.suppress(OSError):  # the spool stays, and the end says so
        return subprocess.Popen(
            [warm.python(), "-m", "flowsight.tracking", str(path)],
            stdin=subprocess.DEVNULL,
            env={**place.ENVIRONMENT, **os.environ, "MLFLOW_TRACKING_URI": tracking_uri()},
            start_new_session=True,  # Ctrl-C is for the training; the tracker sees its end
        )
    return None


def _wait(tracker: subprocess.Popen[bytes] | None, path: Path, wait_sec: float) -> None:
    code, reason = 1, "its process did not start"
    if tracker is not None:
        try:
            code = tracker.wait(wait_sec)
            reason = f"its process ended with code {code}"
        except subprocess.TimeoutExpired:
            tracker.kill()
            tracker.wait()
            reason = f"gave up after {wait_sec:g} s"
    if code not in (0, sending.WAITS) and path.exists():
        sending.warn(reason, path, tracking_uri())
