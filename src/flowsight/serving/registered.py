"""A registered model's bundle, fetched from MLflow."""

from __future__ import annotations

import difflib
import json
import os
import re
from pathlib import Path

from flowsight import tracking
from flowsight.errors import InputError, ResourceError
from flowsight.serving.bundle import MODEL


class NoSuchModel(InputError):  # noqa: N818 (the name says what it is)
    """The registry has no such model, version or alias."""


_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "DO_NOT_TRACK": "1",
}
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")
"""A missing alias is an invalid parameter to MLflow."""


def fetch(uri: str, target: Path) -> Path:
    """Download a registered model's bundle.

    Args:
        uri: `models:/SYSTEM@champion`, `models:/SYSTEM/3`, ...
        target: folder to download into.

    Returns:
        The bundle's folder, below `target`.

    Raises:
        NoSuchModel: there is none of that name, version or alias.
        InputError: the model holds no bundle.
        ResourceError: the registry cannot be reached.
    """
    store = tracking.tracking_uri()
    if store.startswith("sqlite:///") and not Path(store.removeprefix("sqlite:///")).is_file():
        raise NoSuchModel(f"expected {uri} in the registry, but there is no registry at {store}")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(store)
    mlflow.set_registry_uri(store)  # else that of a registry opened before in this process stays
    try:
        folder = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(target))
    except MlflowException as error:
        reason = str(error).splitlines()[0][:200]
        if error.error_code in _ABSENT:
            hint = _nearest(uri)
            raise NoSuchModel(f"expected {uri} in the registry, got: {reason}{hint}") from None
        raise ResourceError(f"expected the registry at {store} to answer, got: {reason}") from None
    return bundle_in(Path(folder), uri)


def _nearest(uri: str) -> str:
    """The registered name that is nearest to one that is not there."""
    import mlflow

    name = re.split("[@/]", uri.removeprefix("models:/"))[0]
    known = [model.name for model in mlflow.MlflowClient().search_registered_models()]
    close = [] if name in known else difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def bundle_in(folder: Path, name: str) -> Path:
    """The folder with `model.json` in a downloaded model.

    Raises:
        InputError: there is none.
    """
    for path in sorted(folder.rglob(MODEL)):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue
        if isinstance(content, dict) and "format" in content:
            return path.parent
    raise InputError(f"expected a bundle of flowsight in {name}, found none; register it again")
