"""What goes wrong in a registry is one line, and the registry stays as it was."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flowsight.errors import FlowsightError, GateError, InputError, ResourceError
from flowsight.registry import aliases, evidence, history, store, trail
from flowsight.registry.store import NotThereError

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def unchanged(world, action: Callable[[], object], kind: type[FlowsightError], says: str) -> None:
    before = (world.aliases(), len(trail.entries(world.registry, world.model)))
    with pytest.raises(kind) as error:
        action()
    assert says in str(error.value) and "\n" not in str(error.value)
    assert (world.aliases(), len(trail.entries(world.registry, world.model))) == before


def test_no_challenger_no_champion_no_previous(world, promote: Callable) -> None:
    world.registry.client.create_registered_model(world.model)
    name, registry = world.model, world.registry
    unchanged(world, lambda: promote(name), NotThereError, "expected a challenger of")
    unchanged(world, lambda: aliases.rollback(registry, name), NotThereError, "no 'champion'")
    world.publish()
    registry.point(name, "champion", "1")
    unchanged(world, lambda: aliases.rollback(registry, name), NotThereError, "no 'previous'")
    unchanged(world, lambda: promote(name), InputError, "is the champion already")
    unchanged(world, lambda: registry.version(name, "9"), NotThereError, "versions: 1")


def test_a_wrong_name_gets_the_nearest(world, promote: Callable) -> None:
    world.registry.client.create_registered_model(world.model)
    near = world.model[:-1]
    for action in (
        lambda: promote(near),
        lambda: aliases.rollback(world.registry, near),
        lambda: history.history(world.registry, near),
        lambda: world.registry.version(near, "champion"),
    ):
        unchanged(world, action, NotThereError, f"did you mean '{world.model}'?")


def test_a_deleted_run(world, promote: Callable) -> None:
    first, second = world.publish(), world.publish(right=38)
    world.registry.point(world.model, "champion", first.version)
    world.registry.point(world.model, "previous", first.version)
    world.registry.client.delete_run(second.run_id)
    says = f"mlflow runs restore --run-id {second.run_id}"
    unchanged(world, lambda: promote(world.model), NotThereError, says)
    world.registry.client.delete_run(first.run_id)
    back = world.registry
    unchanged(world, lambda: aliases.rollback(back, world.model), NotThereError, "was deleted")


def test_a_missing_metric_a_nan_and_another_repository(world, promote: Callable) -> None:
    client, name = world.registry.client, world.model
    world.publish()
    client.delete_model_version_tag(name, "1", "top1")
    unchanged(world, lambda: promote(name), GateError, "numbers: top1 is missing")
    client.set_model_version_tag(name, "1", "top1", "nan")
    unchanged(world, lambda: promote(name), GateError, "numbers: top1 is nan")
    client.set_model_version_tag(name, "1", "top1", "0.9")
    client.set_model_version_tag(name, "1", "repository", "b" * 40)
    unchanged(world, lambda: promote(name), GateError, "trained in the repository bbbbbbbbbb")


def test_a_version_without_evidence(world) -> None:
    client = world.registry.client
    client.create_registered_model(world.model)
    run = client.create_run("0")
    client.create_model_version(world.model, f"runs:/{run.info.run_id}/x", run.info.run_id)
    version = world.registry.version(world.model, "1")
    unchanged(
        world,
        lambda: evidence.load(world.registry, version),
        NotThereError,
        "expected the artifact registry/items.csv",
    )


def test_the_registry_is_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from .conftest import free_port

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    start = time.monotonic()
    with pytest.raises(ResourceError, match="cannot reach the registry at http://127"):
        store.connect()
    assert time.monotonic() - start < 60
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setenv("FLOWSIGHT_REPO", "https://somewhere/repository.git")
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI"):
        store.connect()


def test_the_commands_end_plainly(server_uri: str) -> None:
    """As a person calls them: one line, the exit code, no traceback."""
    for arguments, code, says in (
        (["promote", "nobody"], 2, "expected a registered model, found no 'nobody'"),
        (["promote", "nobody", "--force"], 2, "expected --reason TEXT"),
        (["history", "nobody"], 2, "found no 'nobody'"),
    ):
        done = subprocess.run(
            [BIN / "flowsight", *arguments],
            cwd=ROOT,
            env={**os.environ, "MLFLOW_TRACKING_URI": server_uri},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert says in done.stderr and len(done.stderr.strip().splitlines()) == 1
