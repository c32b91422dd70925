"""Start Airflow and MLflow on this machine, say where they are, stop them together."""

from __future__ import annotations

import fcntl
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from flowsight.errors import FlowsightError, InputError
from flowsight.standalone import rest, services, settings
from flowsight.standalone.services import Service
from flowsight.standalone.settings import Setup

READY_LIMIT_SEC = 240
DAGS = ("retrain", "ingest", "promote", "rollback", "housekeeping")
_PREPARE_DATABASE = """
import sys
from airflow.utils.db import initdb
initdb()
from airflow.models import Pool
Pool.create_or_update_pool("gpu", int(sys.argv[1]), "one slot per GPU", include_deferred=False)
"""


class _StopRequest(BaseException):
    """Ctrl-C, or SIGTERM."""


def run(setup: Setup, until: Callable[[], bool] = lambda: False) -> None:
    """Run everything until Ctrl-C or SIGTERM.

    Args:
        setup: ports and folders.
        until: asked twice a second; true ends the run as Ctrl-C does.

    Raises:
        InputError: a port is taken, another stack uses the folder, or there is no commit to run.
        FlowsightError: a service ended by itself or did not become ready.
    """
    begin = time.monotonic()
    services.check_port("Airflow", setup.port)
    services.check_port("MLflow", setup.mlflow_port)
    with _alone(setup.home), _signals_raise():
        services.adopt_orphans()
        running: list[Service] = []
        try:
            _start(setup, running)
            _wait_until_ready(setup, running)
            _tell(setup, time.monotonic() - begin)
            while not until():
                services.check_alive(running)
                time.sleep(0.5)
        except _StopRequest:
            pass
        finally:
            print("stopping ...", file=sys.stderr, flush=True)
            killed = services.stop(running)
            print(f"stopped{f' ({killed} by force)' if killed else ''}", file=sys.stderr)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Hold the folder: two stacks on one database destroy each other's runs."""
    home.mkdir(parents=True, exist_ok=True)
    with open(home / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"expected {home} to be unused, but another `make airflow` runs there; stop it or "
                "choose another folder with --home"
            ) from None
        yield


@contextmanager
def _signals_raise() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        # once is enough: stopping must not be interrupted
        for known in (signal.SIGINT, signal.SIGTERM):
            signal.signal(known, signal.SIG_IGN)
        raise _StopRequest

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(setup: Setup, running: list[Service]) -> None:
    """Prepare both databases side by side, and start each service when its database is there."""
    env = settings.environment(setup)
    logs = setup.home / "logs"
    store = f"sqlite:///{setup.home / 'mlflow.db'}"
    slots = str(settings.gpu_slots(env))

    def launch(name: str, *command: str) -> Service:
        service = services.start(name, command, env, logs / f"{name}.log")
        running.append(service)
        return service

    print("preparing the databases ...", file=sys.stderr, flush=True)
    airflow = launch("airflow-database", "python", "-c", _PREPARE_DATABASE, slots)
    mlflow = launch("mlflow-database", "mlflow", "db", "upgrade", store)
    _finish(airflow, running)
    launch("airflow-api-server", "airflow", "api-server")
    # logs are read from disk here, so no port is opened for them
    launch("airflow-scheduler", "airflow", "scheduler", "--skip-serve-logs")
    launch("airflow-dag-processor", "airflow", "dag-processor")
    # the server's processes would race in making the tables
    _finish(mlflow, running)
    env["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    launch(
        "mlflow",
        *("mlflow", "server", "--host", "127.0.0.1", "--port", str(setup.mlflow_port)),
        *("--workers", "1", "--backend-store-uri", store),
        *("--artifacts-destination", str(setup.home / "mlflow-artifacts")),
    )
    print("starting the services ...", file=sys.stderr, flush=True)


def _finish(service: Service, running: list[Service]) -> None:
    services.finish(service)
    running.remove(service)


def _wait_until_ready(setup: Setup, running: list[Service]) -> None:
    """Until every part answers and the DAGs are there.

    Raises:
        FlowsightError: a service ended, or the limit passed.
    """
    end = time.monotonic() + READY_LIMIT_SEC
    waiting: dict[str, Callable[[Setup], bool]] = {
        "MLflow": _mlflow_ready,
        "Airflow": _airflow_ready,
        "the DAGs": _dags_ready,
    }
    while waiting:
        services.check_alive(running)
        for name, is_ready in list(waiting.items()):
            if not is_ready(setup):
                break
            del waiting[name]
        if time.monotonic() > end:
            raise FlowsightError(
                f"{', '.join(waiting)} not ready after {READY_LIMIT_SEC} s; logs: "
                f"{setup.home / 'logs'}"
            )
        time.sleep(0.5)


def _mlflow_ready(setup: Setup) -> bool:
    return rest.try_ask(f"{setup.mlflow_url}/health") is not None


def _airflow_ready(setup: Setup) -> bool:
    health = rest.try_ask(f"{setup.airflow_url}/api/v2/monitor/health") or {}
    parts = ("metadatabase", "scheduler", "dag_processor")
    return all((health.get(part) or {}).get("status") == "healthy" for part in parts)


def _dags_ready(setup: Setup) -> bool:
    try:
        found = client(setup).get("/dags?limit=100")
    except OSError:  # refused or not answered, yet
        return False
    return set(DAGS) <= {dag["dag_id"] for dag in found["dags"]}


def client(setup: Setup, user: str = "admin") -> rest.Airflow:
    """The REST API as one of the users."""
    return rest.Airflow(setup.airflow_url, user, settings.passwords(setup)[user])


def _tell(setup: Setup, seconds: float) -> None:
    changed = settings.uncommitted(setup.root)
    lines = [
        f"ready after {seconds:.0f} s; Ctrl-C stops everything",
        f"  Airflow  {setup.airflow_url}  log in as admin, password "
        f"{settings.passwords(setup)['admin']}",
        f"  MLflow   {setup.mlflow_url}",
        f"  files    {setup.home}",
    ]
    if changed:
        lines.append(f"  note: runs work on commits; {changed} files here differ from the last one")
    print("\n".join(lines), flush=True)
