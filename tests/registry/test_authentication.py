"""A server with users, as for anything beyond one's own machine."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowsight import tracking
from flowsight.errors import InputError
from flowsight.registry import history, store
from flowsight.tracking import spool

from .conftest import World, free_port, start_server, stop_server

pytestmark = pytest.mark.slow
PASSWORD = "not-a-secret-of-anybody"  # MLflow refuses short ones


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address; the user is admin."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = READ\nadmin_username = admin\n"
        f"admin_password = {PASSWORD}\ndatabase_uri = sqlite:///{folder}/users.db\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_AUTH_CONFIG_PATH", str(folder / "auth.ini"))
        patch.setenv("MLFLOW_FLASK_SERVER_SECRET_KEY", "for this test only")
        server = start_server(folder, port, "--app-name", "basic-auth")
    yield f"http://127.0.0.1:{port}"
    stop_server(server)


def test_register_and_promote_with_a_log_in(
    guarded: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    promote: Callable,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{guarded}/ajax-api/2.0/mlflow/registered-models/search")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", guarded)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    world = World(store.connect(), tmp_path, "toy")
    world.publish()
    assert promote("toy").done
    assert world.aliases()["champion"] == "1"
    entry = history.history(world.registry, "toy")["entries"][0]
    assert entry["action"] == "promote" and entry["who"].startswith("admin")

    # a wrong password: one line, and what a training logs waits
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "something else")
    with pytest.raises(InputError, match="got admin; set MLFLOW_TRACKING_USERNAME and") as error:
        store.connect()
    assert "\n" not in str(error.value)
    command = [str(Path(sys.executable).parent / "flowsight"), "history", "toy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    monkeypatch.setenv("FLOWSIGHT_TRACKING", "on")
    monkeypatch.setenv("FLOWSIGHT_SCRATCH", str(tmp_path))
    with tracking.run("x", params={}, tags={}) as log:
        log({"loss": 1.0}, 1)
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "error code 401" in line and "`flowsight tracking send" in line
    (waits,) = spool.waiting(tmp_path / ".tracking")
    assert PASSWORD not in waits.read_text() and waits.stat().st_mode & 0o77 == 0
