"""What a training tells MLflow: parameters, metrics, where it came from. Only file that imports it.

The tracker is another process that is fed lines of JSON. So training neither waits the four
seconds that MLflow takes to load, nor for a slow server, nor fails with it; and a training that
is killed leaves a run marked as killed, for the tracker sees its input end.

Environment: `MLFLOW_TRACKING_URI` (default: `mlflow.db` in the repository);
`FLOWSIGHT_TRACKING=off` records nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from flowsight.errors import ResourceError

EXPERIMENT = "flowsight"
_WAIT_SEC = 120.0
"""How long a finished training waits for its last lines to be stored."""

Log = Callable[[Mapping[str, float], int], None]

_ENVIRONMENT = {
    # a server that is away is noticed in seconds
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "DO_NOT_TRACK": "1",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "5",
    "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "1",
}


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
    if is_off():
        yield _no_log
        return
    origin = {"mlflow.source.name": Path(sys.argv[0]).name, **_commit()}
    start = {"name": name, "params": flatten(params), "tags": {**origin, **tags}}
    tracker = subprocess.Popen(
        [sys.executable, "-m", "flowsight.tracking"],
        stdin=subprocess.PIPE,
        env={**_ENVIRONMENT, **os.environ, "MLFLOW_TRACKING_URI": tracking_uri()},
        start_new_session=True,  # Ctrl-C is for the training; the tracker sees its input end
    )
    assert tracker.stdin is not None
    send = _sender(tracker.stdin)
    send({"start": start})
    status = "FAILED"
    try:
        yield lambda metrics, step: send(
            {"metrics": dict(metrics), "step": step, "time_ms": round(time.time() * 1000)}
        )
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        send({"end": status})
        _close(tracker, tracker.stdin, wait_sec)


def is_off() -> bool:
    """Whether nothing is recorded: asked for, or one of several processes of a training."""
    return (
        os.environ.get("FLOWSIGHT_TRACKING", "").lower() == "off"
        or os.environ.get("LOCAL_RANK", "0") != "0"
    )


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or an SQLite file in the repository, by its absolute path."""
    given = os.environ.get("MLFLOW_TRACKING_URI")
    return given or f"sqlite:///{_repository() / 'mlflow.db'}"


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted names and text: {"train": {"lr": 0.1}} to {"train.lr": "0.1"}."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = str(value)
    return flat


def _repository() -> Path:
    return Path(os.environ.get("FLOWSIGHT_REPO") or Path.cwd()).resolve()


def _no_log(metrics: Mapping[str, float], step: int) -> None:
    pass


def _commit() -> dict[str, str]:
    """The commit worked at, and whether something was changed since."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        changed = bool(git("status", "--porcelain", "--untracked-files=no"))
        return {"mlflow.source.git.commit": git("rev-parse", "HEAD"), "git.changed": str(changed)}
    except (OSError, subprocess.SubprocessError):
        return {}


def _sender(pipe: IO[bytes]) -> Callable[[Mapping[str, Any]], None]:
    def send(message: Mapping[str, Any]) -> None:
        # a tracker that gave up has said so itself
        with contextlib.suppress(BrokenPipeError):
            pipe.write(json.dumps(message).encode() + b"\n")
            pipe.flush()

    return send


def _close(tracker: subprocess.Popen[bytes], pipe: IO[bytes], wait_sec: float) -> None:
    with contextlib.suppress(BrokenPipeError):
        pipe.close()
    try:
        tracker.wait(wait_sec)
    except subprocess.TimeoutExpired:
        tracker.kill()
        tracker.wait()
        _warn(f"gave up after {wait_sec:g} s")


def _warn(reason: str) -> None:
    text = " ".join(reason.split())[:300]
    print(f"tracking: {text} ({tracking_uri()}); the work goes on without it", file=sys.stderr)


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


# ---- the tracker's process ----


def serve(lines: IO[str]) -> None:
    """Store what comes in lines of JSON: {start}, then {metrics, step} ..., then {end}.

    Args:
        lines: from the training; their end without {end} means that it was killed.
    """
    messages: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_read, args=(lines, messages), daemon=True).start()
    try:
        _store(messages)
    except Exception as error:  # whatever a server or a database may raise
        _warn(f"{type(error).__name__}: {error}")
        raise SystemExit(1) from None


def _read(lines: IO[str], messages: queue.Queue[dict[str, Any]]) -> None:
    # read at once, so that the training never waits for a full pipe
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):  # cut off by a kill
            messages.put(json.loads(line))
    messages.put({"end": "KILLED"})


def _store(messages: queue.Queue[dict[str, Any]]) -> None:
    start = messages.get().get("start")
    if start is None:
        return
    import mlflow

    with _first_use_lock():
        experiment_id = _experiment_id()
    mlflow.start_run(
        experiment_id=experiment_id,
        run_name=start["name"],
        tags=start["tags"],
        log_system_metrics=True,
    )
    mlflow.log_params({name: value[:6000] for name, value in start["params"].items()})
    while True:
        message = messages.get()
        if "end" in message:
            mlflow.end_run(message["end"])
            return
        mlflow.log_metrics(message["metrics"], message["step"], timestamp=message["time_ms"])


def _experiment_id() -> str:
    import mlflow

    found = mlflow.get_experiment_by_name(EXPERIMENT)
    if found is None:
        # a server knows where its artifacts belong; a file would note the current folder
        local = tracking_uri().startswith("sqlite:")
        place = (_repository() / "mlruns").as_uri() if local else None
        try:
            return str(mlflow.create_experiment(EXPERIMENT, artifact_location=place))
        except mlflow.exceptions.MlflowException:  # somebody else was faster
            found = mlflow.get_experiment_by_name(EXPERIMENT)
            if found is None:
                raise
    return str(found.experiment_id)


@contextmanager
def _first_use_lock() -> Iterator[None]:
    """One process at a time makes the tables of an SQLite store; several break each other."""
    uri = tracking_uri()
    if not uri.startswith("sqlite:///"):
        yield
        return
    path = Path(uri.removeprefix("sqlite:///") + ".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the system lets go of it when the process ends
        yield


if __name__ == "__main__":
    code = 1
    try:
        serve(sys.stdin)
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)  # no exit handler may ask a server that is away once more
