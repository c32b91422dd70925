"""Where runs are kept: the store's address, its experiment, the folder of what waits."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "flowsight"
ENVIRONMENT = {
    # a server that is away is noticed in seconds; who logs tries again anyway
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "DO_NOT_TRACK": "1",
    "GIT_PYTHON_REFRESH": "quiet",
}
_SQLITE = "sqlite:///"


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or an SQLite file in the repository, by its absolute path."""
    given = os.environ.get("MLFLOW_TRACKING_URI")
    return given or f"{_SQLITE}{_repository() / 'mlflow.db'}"


def plain(uri: str) -> str:
    """An address without the user and password that may stand in it."""
    parts = urlsplit(uri)
    return uri if "@" not in parts.netloc else uri.replace(parts.netloc, parts.netloc.split("@")[1])


def with_login(uri: str) -> str:
    """An address with the log-in, if the environment names the same one with it."""
    own = tracking_uri()
    return own if plain(own) == uri else uri


def spool_folder() -> Path:
    """Where what could not be sent waits: below `FLOWSIGHT_SCRATCH`, else `build/scratch`."""
    scratch = os.environ.get("FLOWSIGHT_SCRATCH") or _repository() / "build" / "scratch"
    # no run and no stage has a name with a dot before it
    return Path(scratch).absolute() / ".tracking"


def _repository() -> Path:
    given = Path(os.environ.get("FLOWSIGHT_REPO") or ".")
    # a worker knows its repository by a URL
    return (given if given.is_dir() else Path()).resolve()


def experiment_id(client: MlflowClient, uri: str) -> str:
    """The experiment of all runs; made where there is none.

    Args:
        client: of the store.
        uri: its address.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        try:
            return str(client.create_experiment(EXPERIMENT, artifact_location=artifacts(uri)))
        except MlflowException:  # somebody else was faster
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                raise
    return str(found.experiment_id)


def artifacts(uri: str) -> str | None:
    """Where a new experiment keeps files: beside an SQLite file; None: the server knows."""
    if not uri.startswith(_SQLITE):
        return None
    return (_file(uri).parent / "mlruns").as_uri()  # MLflow would note the current folder


def _file(uri: str) -> Path:
    return Path(uri.removeprefix(_SQLITE)).absolute()


@contextmanager
def store_lock(uri: str) -> Iterator[None]:
    """One process at a time, where the store is an SQLite file; a server needs none.

    Making the tables of a fresh file is no work for several at once: they break each other.
    """
    if not uri.startswith(_SQLITE):
        yield
        return
    path = _file(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the system lets go of it when the process ends
        yield
