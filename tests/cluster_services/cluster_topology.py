"""The topology of `deploy/compose.yaml` as processes: PostgreSQL, Redis, Airflow, workers, MLflow.

Same executor, broker, result store, queues and environment variables. First a directory stands for
the object store, then an S3 server (`cluster_store`). Each worker has its own HOME, AIRFLOW_HOME,
FLOWSIGHT_WORK, TMPDIR and DVC folders, as if on a machine of its own; the folders of the remote,
the fragments and the scratch are shared.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster_processes import Service, Services, free_port, unprivileged_user
from cluster_rest import Rest

BIN = Path(sys.executable).parent
DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
HEARTBEAT_SEC = 20
"""After this long without a sign of life a task counts as lost (Airflow's default: 300)."""
LEASE_SEC = 15
"""The same for the worker's lease of a stage (default: 60)."""


def postgres_bin() -> Path | None:
    """Folder of PostgreSQL's own programs; Debian keeps them off PATH."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3])
    )
    return versions[-1].parent if versions else None


@dataclass(kw_only=True)
class Cluster(Rest):
    """Ports, secrets, folders and the running services."""

    services: Services
    repo: Path
    """Bare git repository: workers clone from it and push to it, Airflow reads its DAGs from it."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """More environment for everything."""
    store: dict[str, str] = field(default_factory=dict)
    """What a worker must know of an object store."""
    jwt: str = field(default_factory=lambda: secrets.token_hex(48))
    fernet: str = field(
        default_factory=lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    )
    named: dict[str, Service] = field(default_factory=dict)
    workers: dict[str, str] = field(default_factory=dict)
    """Name -> queues."""

    def __post_init__(self) -> None:
        for name in ("postgres", "redis", "airflow", "mlflow"):
            self.ports.setdefault(name, free_port())
        for name in ("remote", "fragments", "scratch", "artifacts", "task-logs", "dvc-config"):
            (self.folder / name).mkdir(exist_ok=True)
        self.set_remote(f"url = {self.folder / 'remote'}")

    def set_remote(self, settings: str) -> None:
        """Name the DVC remote of all workers."""
        (self.folder / "dvc-config" / "config").write_text(
            f"['remote \"shared\"']\n    {settings}\n"
            "[core]\n    remote = shared\n    analytics = false\n    check_update = false\n"
        )

    # environments ---------------------------------------------------------------------------

    def database(self, name: str) -> str:
        account, port = name.split("_")[0], self.ports["postgres"]
        return f"postgresql+psycopg2://{account}:{self.password}@127.0.0.1:{port}/{name}"

    @property
    def broker(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.ports['redis']}/0"

    def base_env(self, home: Path) -> dict[str, str]:
        """What every process gets: our Python first, no reports home, a home of its own."""
        (home / "tmp").mkdir(parents=True, exist_ok=True)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "FLOWSIGHT_"))}
        return {
            **kept,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "DVC_NO_ANALYTICS": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "GX_ANALYTICS_ENABLED": "False",
            "DO_NOT_TRACK": "1",
            "PYTHONUNBUFFERED": "1",
            # Airflow names its processes; without this it would overwrite the mark we know them by
            "SPT_NOENV": "1",
            **self.extra,
        }

    def airflow_env(self, name: str) -> dict[str, str]:
        """Airflow's settings, the names that deploy/compose.yaml uses, with short deadlines."""
        home = self.folder / "homes" / name
        port = self.ports["airflow"]
        (home / "airflow").mkdir(parents=True, exist_ok=True)
        settings = {
            "CORE__EXECUTOR": "CeleryExecutor",
            "CORE__LOAD_EXAMPLES": False,
            "CORE__FERNET_KEY": self.fernet,
            "CORE__PARALLELISM": 8,
            "CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,viewer:viewer,flowsight:user",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": self.folder / "passwords.json",
            "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
            "DATABASE__SQL_ALCHEMY_CONN": self.database("airflow"),
            "CELERY__BROKER_URL": self.broker,
            "CELERY__RESULT_BACKEND": "db+" + self.database("airflow"),
            "CELERY__WORKER_PREFETCH_MULTIPLIER": 1,
            "API__HOST": "127.0.0.1",
            "API__PORT": port,
            "API__WORKERS": 1,
            "API__SECRET_KEY": self.jwt[:32],
            "API_AUTH__JWT_SECRET": self.jwt,
            # parsed once; what workers parse is not concerned
            "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": 3600,
            "DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([self.dag_bundle()]),
            "DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": home / "bundles",
            "LOGGING__BASE_LOG_FOLDER": self.folder / "task-logs",
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": HEARTBEAT_SEC,
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": 3,
            "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": 15,
            # pools are as large as the workers, so nothing waits in a queue for long
            "SCHEDULER__TASK_QUEUED_TIMEOUT": 120,
            "SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": 10,
            "WORKERS__MIN_HEARTBEAT_INTERVAL": 3,
            # a busy machine answers late
            "WORKERS__EXECUTION_API_TIMEOUT": 30,
        }
        return {
            **self.base_env(home),
            "AIRFLOW_HOME": str(home / "airflow"),
            # a retrained model is registered, and the gate alone lets it into service
            "FLOWSIGHT_REGISTER": "1",
            "FLOWSIGHT_PROMOTION": "automatic",
            **{f"AIRFLOW__{key}": str(value) for key, value in settings.items()},
        }

    def dag_bundle(self) -> dict[str, Any]:
        """DAGs at `main`; tasks of a run keep the commit that the run began with."""
        return {
            "name": "flowsight",
            "classpath": "airflow.providers.git.bundles.git.GitDagBundle",
            "kwargs": {"repo_url": str(self.repo), "tracking_ref": "main", "subdir": "dags"},
        }

    def worker_env(self, name: str) -> dict[str, str]:
        """A worker's own folders and what `flowsight run-stage` wants to know."""
        home = self.folder / "homes" / name
        return {
            **self.airflow_env(name),
            "AIRFLOW_CONN_FLOWSIGHT_AIRFLOW": f"http://flowsight:{self.password}@127.0.0.1:"
            f"{self.ports['airflow']}",
            "FLOWSIGHT_REPO": str(self.repo),
            "FLOWSIGHT_RUNS": str(self.folder / "fragments"),
            "FLOWSIGHT_SCRATCH": str(self.folder / "scratch"),
            "FLOWSIGHT_WORK": str(home / "work"),
            "FLOWSIGHT_GPU_LEASES": str(home / "leases"),
            "FLOWSIGHT_LEASE_SEC": str(LEASE_SEC),
            "MLFLOW_TRACKING_URI": self.mlflow_url,
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": self.password,
            "DVC_GLOBAL_CONFIG_DIR": str(self.folder / "dvc-config"),
            "DVC_SITE_CACHE_DIR": str(home / "dvc-site"),
            **self.store,
        }

    # services -------------------------------------------------------------------------------

    def start_all(self, workers: Mapping[str, str]) -> None:
        """Start everything; `workers` is name -> queues."""
        self.start_postgres()
        self.start_redis()
        self.start_mlflow()
        env = {
            **self.airflow_env("control"),
            "FLOWSIGHT_RETRY_DELAY_SEC": "1",
            "FLOWSIGHT_RETRAIN_SCHEDULE": "off",
        }
        users = ("ADMIN", "VIEWER", "FLOWSIGHT")
        accounts = {f"{user}_PASSWORD": self.password for user in users}
        slots = {"GPU_SLOTS": "2", "CPU_SLOTS": "2"}  # each worker takes either kind
        self.run_script("airflow-init.sh", {**env, **accounts, **slots})
        for name in ("api-server", "scheduler", "dag-processor"):
            self.named[name] = self.services.start(name, [BIN / "airflow", name], env)
        for name, queues in workers.items():
            self.start_worker(name, queues)
        self.wait_control_plane()
        self.wait_workers(set(workers))
        self.wait_mlflow()
        self.token = self.log_in("admin", self.password)

    def run_script(self, name: str, env: Mapping[str, str]) -> None:
        """One of deploy/'s scripts that end, as Compose runs it."""
        done = subprocess.run(
            [DEPLOY / name], env=dict(env), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{name}: {done.stdout[-2000:]}{done.stderr[-2000:]}"

    def start_postgres(self) -> None:
        programs = postgres_bin()
        assert programs is not None
        user, data, port = unprivileged_user(), self.folder / "postgres", self.ports["postgres"]
        data.mkdir()
        secret = self.folder / "postgres-password"
        secret.write_text(self.password)
        if user:
            shutil.chown(data, user)
            shutil.chown(secret, user)
        command: list[Any] = [programs / "initdb", "-D", data, "-U", "postgres"]
        command += ["--auth=scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8"]
        command += ["--no-locale", "--no-sync"]
        as_user: dict[str, Any] = {"user": user, "extra_groups": []} if user else {}
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True, **as_user)
        options = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": 200,
        }
        settings = [part for k, v in options.items() for part in ("-c", f"{k}={v}")]
        env = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        server = [programs / "postgres", "-D", data, *settings]
        # SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for its clients
        service = self.services.start("postgres", server, env, user=user, stop_signal=signal.SIGINT)
        service.wait_healthy(self._postgres_answers, timeout_sec=60)
        account = {"POSTGRES_USER": "postgres", "PGPASSWORD": self.password}
        place = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGDATABASE": "postgres"}
        passwords = {f"{name}_DB_PASSWORD": self.password for name in ("AIRFLOW", "MLFLOW")}
        self.run_script("postgres/databases.sh", {**env, **account, **place, **passwords})

    def _postgres_answers(self) -> bool:
        import psycopg2

        try:
            psycopg2.connect(
                host="127.0.0.1",
                port=self.ports["postgres"],
                user="postgres",
                password=self.password,
                dbname="postgres",
            ).close()
        except psycopg2.OperationalError:
            return False
        return True

    def start_redis(self) -> None:
        config = self.folder / "redis.conf"
        config.write_text(
            f"bind 127.0.0.1\nport {self.ports['redis']}\nrequirepass {self.password}\n"
            f"save ''\nappendonly no\ndir {self.folder}\n".replace("''", '""')
        )
        redis = shutil.which("redis-server")
        assert redis is not None
        env = {"PATH": os.environ["PATH"]}
        service = self.services.start("redis", [redis, config], env)

        def answers() -> bool:
            from redis import Redis
            from redis.exceptions import ConnectionError as NotYet

            try:
                return bool(Redis.from_url(self.broker).ping())
            except NotYet:
                return False

        service.wait_healthy(answers, timeout_sec=30)

    def start_mlflow(self) -> None:
        home = self.folder / "homes" / "mlflow"
        env = {
            **self.base_env(home),
            "HOST": "127.0.0.1",
            "PORT": str(self.ports["mlflow"]),
            "MLFLOW_BACKEND_STORE_URI": self.database("mlflow"),
            "MLFLOW_AUTH_DB": self.database("mlflow_auth"),
            "MLFLOW_AUTH_CONFIG_PATH": str(home / "auth.ini"),
            "MLFLOW_ADMIN_PASSWORD": self.password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": self.jwt,
            "MLFLOW_ARTIFACTS": str(self.folder / "artifacts"),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_WORKERS": "1",
        }
        command = [DEPLOY / "mlflow-server.sh"]
        self.named["mlflow"] = self.services.start("mlflow", command, env, cwd=home)

    def start_worker(self, name: str, queues: str) -> None:
        """A Celery worker on a machine of its own, one task at a time."""
        self.workers[name] = queues
        command = [BIN / "airflow", "celery", "worker", "--celery-hostname", f"{name}@%h"]
        command += ["--queues", queues, "--concurrency", "1", "--skip-serve-logs"]
        self.named[name] = self.services.start(name, command, self.worker_env(name))

    # health ---------------------------------------------------------------------------------

    def wait_control_plane(self) -> None:
        def healthy() -> bool:
            state = self.get("/api/v2/monitor/health")
            parts = ("metadatabase", "scheduler", "dag_processor")
            return all(state[part]["status"] == "healthy" for part in parts)

        self.named["api-server"].wait_healthy(healthy, timeout_sec=300)

    def wait_workers(self, names: set[str]) -> None:
        def answer() -> bool:
            return {node.split("@")[0] for node in self.ping_workers()} >= names

        for name in names:
            self.named[name].wait_healthy(answer, timeout_sec=300)

    def ping_workers(self) -> dict[str, Any]:
        """Workers that answer through the broker, as `celery inspect ping` asks them."""
        from celery import Celery

        with Celery("ping", broker=self.broker) as app:
            return app.control.inspect(timeout=2).ping() or {}

    def wait_mlflow(self) -> None:
        def healthy() -> bool:
            with urllib.request.urlopen(f"{self.mlflow_url}/health", timeout=5) as answer:
                return bool(answer.status == 200)

        self.named["mlflow"].wait_healthy(healthy, timeout_sec=300)
