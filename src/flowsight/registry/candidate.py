"""What is to be kept about a model beside its weights, and its way into the registry."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsight import tracking
from flowsight.files import write_csv
from flowsight.registry import store
from flowsight.registry.store import (
    CHALLENGER,
    CHAMPION,
    NotThereError,
    Registry,
    TakenError,
    speaking,
)
from flowsight.tracking import place

if TYPE_CHECKING:
    import pandas as pd

ITEMS, SCORES = "registry/items.csv", "registry/predictions.parquet"
BEFORE = "registry/clips.csv"
"""What `ITEMS` was called when there were only clips."""


def stage_tag(stage: str) -> str:
    """Tag that holds a stage's hash; MLflow takes no @ in names."""
    return f"stage_hash.{stage.replace('@', ':')}"


@dataclass(frozen=True, kw_only=True)
class Served:
    """The model as MLflow stores it: code from a file, weights as artifacts, no pickles."""

    code: Path
    """File of the models-from-code model."""
    artifacts: Mapping[str, Path]
    packages: Sequence[Path] = ()
    """Folders of Python packages that travel with it."""
    requirements: Sequence[str] = ()
    """Exact, as `numpy==2.4.6`."""
    signature: Any = None
    example: Any = None


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Where a model came from and what it scored."""

    name: str
    checkpoint: str
    """Hash of all its checkpoints: the same one is never registered twice."""
    tags: Mapping[str, str]
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    items: pd.DataFrame
    """All items of its split, see `subjects.Subject.items`."""
    scores: pd.DataFrame
    """Its test items, see `subjects.Subject.scores`."""
    evaluation: Mapping[str, Path] = field(default_factory=dict)
    """Figures and tables for people: path below `evaluation/` of the run -> file."""


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A version of a model."""

    name: str
    version: str
    run_id: str
    is_new: bool


def find(registry: Registry, name: str, checkpoint: str) -> Registered | None:
    """The version that has these checkpoints, the oldest if there are several."""
    for version in registry.versions(name, {"checkpoint": checkpoint}):
        with contextlib.suppress(NotThereError):  # without its run it is worth nothing
            registry.run(version)
            return Registered(
                name=name, version=str(version.version), run_id=version.run_id, is_new=False
            )
    return None


def publish(registry: Registry, candidate: Candidate, served: Callable[[], Served]) -> Registered:
    """Make a version of a registered model, unless its checkpoints have one; alias challenger.

    A version appears whole, with its tags, after all its artifacts: killed before, it leaves a run
    that nobody looks at.

    Args:
        registry: where.
        candidate: what is known of the model.
        served: makes the model itself; called only where there is no version yet.

    Raises:
        ResourceError: the registry cannot be reached.
    """
    found = find(registry, candidate.name, candidate.checkpoint) or _make(
        registry, candidate, served()
    )
    aliases = registry.aliases(found.name)
    if found.version not in (aliases.get(CHAMPION), aliases.get(CHALLENGER)):
        registry.point(found.name, CHALLENGER, found.version)
    return found


def _make(registry: Registry, candidate: Candidate, served: Served) -> Registered:
    with contextlib.suppress(TakenError), speaking(registry.uri):
        registry.client.create_registered_model(candidate.name)
    with speaking(registry.uri), store.quiet():
        run_id, model_id, source = _log(registry, candidate, served)
        made = registry.client.create_model_version(
            candidate.name, source, run_id, tags=_version_tags(candidate), model_id=model_id
        )
    # two at once: the lower number stays
    first = find(registry, candidate.name, candidate.checkpoint)
    if first is not None and first.version != str(made.version):
        with speaking(registry.uri):
            registry.client.delete_model_version(candidate.name, str(made.version))
        return first
    return Registered(name=candidate.name, version=str(made.version), run_id=run_id, is_new=True)


def _version_tags(candidate: Candidate) -> dict[str, str]:
    return {"checkpoint": candidate.checkpoint, **candidate.tags}


def _log(registry: Registry, candidate: Candidate, served: Served) -> tuple[str, str, str]:
    import mlflow

    with place.store_lock(registry.uri):
        experiment = place.experiment_id(registry.client, registry.uri)
    with mlflow.start_run(
        experiment_id=experiment,
        run_name=f"register {candidate.name}",
        tags={**_version_tags(candidate), "registered_model": candidate.name},
    ) as run:
        params = tracking.flatten(candidate.params)
        mlflow.log_params({name: value[:6000] for name, value in params.items()})
        mlflow.log_metrics(dict(candidate.metrics))
        _log_tables(candidate)
        _log_evaluation(candidate)
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(served.code),
            artifacts={name: str(path) for name, path in served.artifacts.items()},
            code_paths=[str(path) for path in served.packages] or None,
            signature=served.signature,
            input_example=served.example,
            pip_requirements=list(served.requirements),
        )
    return run.info.run_id, info.model_id, info.model_uri


def _log_evaluation(candidate: Candidate) -> None:
    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        for name, path in candidate.evaluation.items():
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        mlflow.log_artifacts(folder, "evaluation")


def _log_tables(candidate: Candidate) -> None:
    import mlflow

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_csv(candidate.items, folder / Path(ITEMS).name)
        candidate.scores.to_parquet(folder / Path(SCORES).name, index=False, compression="zstd")
        mlflow.log_artifacts(str(folder), str(Path(ITEMS).parent))
    if "dvc.data" in candidate.tags:
        data = mlflow.data.from_pandas(
            candidate.items,
            source=candidate.tags["data_path"],
            name=candidate.tags["dataset"],
            digest=candidate.tags["dvc.data"][:36],
        )
        mlflow.log_input(data, context="training and test")
