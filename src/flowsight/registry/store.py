"""The registry of models as MLflow keeps it: a connection, versions, aliases, errors for people.

MLflow is imported when a connection is opened, never with this module.
"""

from __future__ import annotations

import difflib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsight.errors import FlowsightError, InputError, ResourceError
from flowsight.tracking import place

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"

_ENVIRONMENT = {
    # a server that is away is noticed in seconds; an answer to a large upload may take longer
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "DO_NOT_TRACK": "1",
    "GIT_PYTHON_REFRESH": "quiet",
}
_AWAY = (
    "Max retries exceeded",
    "Connection",
    "timed out",
    "unable to open database",
    "could not connect",
    "could not translate host",
    "failed with error code 5",
    "Invalid Host header",
)


class NotThereError(InputError):
    """The registry has no such model, version, alias or run."""


class TakenError(FlowsightError):
    """Somebody else made it first."""


class Registry:
    """A connection to the registry and to the tracking store beside it."""

    def __init__(self, client: MlflowClient, uri: str) -> None:
        self.client = client
        self.uri = uri

    def check_model(self, name: str) -> None:
        """Refuse a name that no registered model has.

        Raises:
            NotThereError: with the nearest name.
        """
        with speaking(self.uri):
            known = sorted(model.name for model in self._models())
        if name in known:
            return
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"registered: {', '.join(known)}"
        hint = hint if known else "none is registered yet; `flowsight register SYSTEM` does it"
        raise NotThereError(f"expected a registered model, found no {name!r}; {hint}")

    def _models(self) -> list[RegisteredModel]:
        page = self.client.search_registered_models(max_results=200)
        found = list(page)
        while page.token:
            page = self.client.search_registered_models(max_results=200, page_token=page.token)
            found += page
        return found

    def aliases(self, name: str) -> dict[str, str]:
        """Alias -> version of a model.

        Raises:
            NotThereError: no such model.
        """
        try:
            with speaking(self.uri):
                found = self.client.get_registered_model(name).aliases
        except NotThereError:
            self.check_model(name)  # says what is there
            raise
        return {alias: str(version) for alias, version in found.items()}

    def version(self, name: str, reference: str) -> ModelVersion:
        """A version of a model by its number or alias.

        Raises:
            NotThereError: no such model, alias or version.
        """
        aliases = self.aliases(name)
        number = reference if reference.isdigit() else aliases.get(reference)
        if number is None:
            there = ", ".join(f"{a} (version {v})" for a, v in sorted(aliases.items())) or "none"
            raise NotThereError(
                f"expected an alias of {name}, found no {reference!r}; aliases: {there}"
            )
        try:
            with speaking(self.uri):
                return self.client.get_model_version(name, number)
        except NotThereError:
            raise NotThereError(
                f"expected version {number} of {name}, found none; versions: "
                f"{', '.join(str(v.version) for v in self.versions(name)) or 'none'}"
            ) from None

    def versions(self, name: str, tags: Mapping[str, str] | None = None) -> list[ModelVersion]:
        """Versions of a model that carry all of some tags, the oldest first."""
        with speaking(self.uri):
            found = self.client.search_model_versions(f"name = '{name}'")
        wanted = (tags or {}).items()
        chosen = [one for one in found if all(one.tags.get(k) == v for k, v in wanted)]
        return sorted(chosen, key=lambda one: int(one.version))

    def every_version(self) -> list[ModelVersion]:
        """All versions of all models."""
        with speaking(self.uri):
            found = list(self.client.search_model_versions())
        return sorted(found, key=lambda one: (one.name, int(one.version)))

    def run(self, version: ModelVersion) -> Run:
        """The run that a version came from.

        Raises:
            NotThereError: it was deleted.
        """
        what = f"version {version.version} of {version.name}"
        try:
            with speaking(self.uri):
                run = self.client.get_run(version.run_id)
        except NotThereError:
            raise NotThereError(
                f"expected the run {version.run_id} of {what}, found none; its numbers are gone: "
                "register the model again"
            ) from None
        if run.info.lifecycle_stage == "deleted":
            raise NotThereError(
                f"expected the run of {what}, but it was deleted; bring it back with "
                f"`mlflow runs restore --run-id {version.run_id}`"
            )
        return run

    def point(self, name: str, alias: str, version: str | None) -> None:
        """Set an alias to a version; None removes it. One alias moves at once or not at all."""
        with speaking(self.uri):
            if version is None:
                self.client.delete_registered_model_alias(name, alias)
            else:
                self.client.set_registered_model_alias(name, alias, version)

    def download(self, run_id: str, path: str, target: Path) -> Path:
        """Bring an artifact of a run to a folder.

        Raises:
            NotThereError: the run has no such artifact.
        """
        import mlflow

        try:
            with speaking(self.uri):
                got = mlflow.artifacts.download_artifacts(
                    run_id=run_id, artifact_path=path, dst_path=str(target), tracking_uri=self.uri
                )
        except ResourceError:
            raise
        except (FlowsightError, OSError) as error:
            raise NotThereError(
                f"expected the artifact {path} of run {run_id}, found none ({error})"
            ) from None
        return Path(got)

    def create_experiment(self, name: str, tags: Mapping[str, str] | None = None) -> str:
        """Make an experiment with its tags, in one step: of several who try, one succeeds.

        Raises:
            TakenError: it is there, or was and is deleted.
        """
        with speaking(self.uri):
            made = self.client.create_experiment(
                name, artifact_location=place.artifacts(self.uri), tags=dict(tags or {})
            )
        return str(made)


def connect() -> Registry:
    """The registry that `MLFLOW_TRACKING_URI` names (default: `mlflow.db` in the repository).

    Raises:
        InputError: no address, and the repository is not on this machine.
        ResourceError: it cannot be reached.
    """
    repository = os.environ.get("FLOWSIGHT_REPO", "")
    if not os.environ.get("MLFLOW_TRACKING_URI") and "://" in repository:
        raise InputError(
            "expected the registry's address in MLFLOW_TRACKING_URI, found none; FLOWSIGHT_REPO is "
            "no folder of this machine that could hold one"
        )
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    uri = place.tracking_uri()
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    with speaking(uri), place.store_lock(uri):
        client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_registered_models(max_results=1)  # makes a file's tables
    return Registry(client, uri)


@contextmanager
def quiet() -> Iterator[None]:
    """MLflow's advice on our own code is not for who registers a model."""
    logger = logging.getLogger("mlflow")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # MLflow sets filters of its own; the block's end puts this back
            warnings.showwarning = lambda *message, **more: None
            yield
    finally:
        logger.setLevel(before)


@contextmanager
def speaking(uri: str) -> Iterator[None]:
    """What MLflow and its transports raise in the block becomes an error for people."""
    try:
        yield
    except FlowsightError:
        raise
    except Exception as error:  # a server, a database and their drivers may raise anything
        known = _translate(error, uri)
        if known is None:
            raise
        raise known from None


def _translate(error: Exception, uri: str) -> FlowsightError | None:
    import requests
    from mlflow.exceptions import MlflowException

    text, uri = " ".join(str(error).split())[:300], place.plain(uri)
    if isinstance(error, requests.RequestException):
        return ResourceError(f"cannot reach the registry at {uri}: {text}")
    if not isinstance(error, MlflowException):
        return None
    code: Any = getattr(error, "error_code", "")
    if code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
        return NotThereError(f"the registry at {uri} says: {text}")
    if code == "RESOURCE_ALREADY_EXISTS":
        return TakenError(text)
    if any(sign in text for sign in _AWAY):
        return ResourceError(f"cannot reach the registry at {uri}: {text}")
    if "failed with error code 40" in text:
        return _refused(text, uri)
    return FlowsightError(f"the registry at {uri} says: {text}")


def _refused(text: str, uri: str) -> FlowsightError:
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if "error code 401" in text:
        return InputError(
            f"expected a user whom the registry at {uri} knows, got {user or 'none'}; set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if "error code 403" in text:
        return InputError(
            f"expected a user who may do this at {uri}, but {user or 'nobody'} may not; ask who "
            "gives permissions there"
        )
    return FlowsightError(f"the registry at {uri} says: {text}")
