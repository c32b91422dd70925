"""What Airflow, MLflow and the workers on one machine are told, all of it by environment."""

from __future__ import annotations

import configparser
import json
import os
import secrets
import shutil
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from flowsight.errors import InputError

USERS = {"admin": "admin", "flowsight": "user"}
"""Airflow's users and their roles; tasks write run notes as `flowsight`."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """One installation on this machine."""

    root: Path
    """The repository: its commits are what runs work on."""
    home: Path
    """Database, logs, secrets, DVC remote, the workers' clones."""
    port: int
    mlflow_port: int

    @property
    def airflow_url(self) -> str:
        """Address of Airflow's UI and REST API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def mlflow_url(self) -> str:
        """Address of MLflow's UI and tracking server."""
        return f"http://127.0.0.1:{self.mlflow_port}"

    @property
    def passwords_file(self) -> Path:
        """Where Airflow looks its users' passwords up."""
        return self.home / "secrets" / "passwords.json"


def passwords(setup: Setup) -> dict[str, str]:
    """Name and password of every user; made once."""
    return json.loads(_kept(setup.passwords_file, _new_passwords))


def _new_passwords() -> str:
    return json.dumps({user: secrets.token_urlsafe(12) for user in USERS}) + "\n"


def _keys(setup: Setup) -> dict[str, str]:
    return json.loads(_kept(setup.home / "secrets" / "keys.json", _new_keys))


def _new_keys() -> str:
    fernet = urlsafe_b64encode(secrets.token_bytes(32)).decode()
    keys = {"jwt": secrets.token_hex(48), "session": secrets.token_hex(32), "fernet": fernet}
    return json.dumps(keys) + "\n"


def _kept(path: Path, make: Callable[[], str]) -> str:
    """A file that only its owner may read, made when it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(make())
    path.chmod(0o600)
    return path.read_text()


def environment(setup: Setup) -> dict[str, str]:
    """The environment of every service and so of every task.

    What a person has set already (`FLOWSIGHT_*`, `DVC_GLOBAL_CONFIG_DIR`, `MLFLOW_TRACKING_URI`)
    stays as it is.

    Raises:
        InputError: the root is no git repository with a commit.
    """
    return {
        **_quiet(),
        **_of_workers(setup),
        **os.environ,
        **_of_airflow(setup),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }


def _quiet() -> dict[str, str]:
    """Nobody's installation reports home."""
    return {
        "DO_NOT_TRACK": "1",
        "SCARF_ANALYTICS": "false",
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GX_ANALYTICS_ENABLED": "False",
    }


def _of_airflow(setup: Setup) -> dict[str, str]:
    keys, known = _keys(setup), passwords(setup)
    robot = f"flowsight:{known['flowsight']}@127.0.0.1:{setup.port}"
    sections = {
        "CORE": {
            "DAGS_FOLDER": str(setup.root / "dags"),
            "EXECUTOR": "LocalExecutor",
            "EXECUTION_API_SERVER_URL": f"{setup.airflow_url}/execution/",
            "FERNET_KEY": keys["fernet"],
            "LOAD_EXAMPLES": "False",
            "PARALLELISM": str(max(2, os.cpu_count() or 2)),
            "SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
            "SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(setup.passwords_file),
            "SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{u}:{role}" for u, role in USERS.items()),
        },
        "API": {
            "BASE_URL": setup.airflow_url,
            "HOST": "127.0.0.1",
            "PORT": str(setup.port),
            "SECRET_KEY": keys["session"],
            "WORKERS": "1",
        },
        "API_AUTH": {"JWT_SECRET": keys["jwt"]},
        "DATABASE": {"SQL_ALCHEMY_CONN": f"sqlite:///{setup.home / 'airflow.db'}"},
        # by default a changed DAG file is seen after minutes
        "DAG_PROCESSOR": {"REFRESH_INTERVAL": "15", "PARSING_PROCESSES": "1"},
        "LOGGING": {"BASE_LOG_FOLDER": str(setup.home / "logs" / "tasks")},
        "USAGE_DATA_COLLECTION": {"ENABLED": "False"},
    }
    found = {
        f"AIRFLOW__{section}__{name}": value
        for section, values in sections.items()
        for name, value in values.items()
    }
    return {
        **found,
        "AIRFLOW_HOME": str(setup.home),
        "AIRFLOW_CONN_FLOWSIGHT_AIRFLOW": f"http://{robot}",
    }


def _of_workers(setup: Setup) -> dict[str, str]:
    found = {
        "FLOWSIGHT_REPO": str(setup.root),
        "FLOWSIGHT_REV": _branch(setup.root),
        "FLOWSIGHT_RUNS": str(setup.home / "runs"),
        "FLOWSIGHT_SCRATCH": str(setup.home / "scratch"),
        "FLOWSIGHT_WORK": str(setup.home / "work"),
        "FLOWSIGHT_GPU_LEASES": str(setup.home / "leases"),
        "FLOWSIGHT_DROP": str(setup.root / "data" / "drop"),
        "MLFLOW_TRACKING_URI": setup.mlflow_url,
    }
    if not _has_remote(setup.root):
        found["DVC_GLOBAL_CONFIG_DIR"] = str(_local_remote(setup.home))
    return found


def _branch(root: Path) -> str:
    """The branch that is checked out; the commit, where none is."""
    for arguments in (["symbolic-ref", "--short", "HEAD"], ["rev-parse", "HEAD"]):
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
    raise InputError(
        f"expected a git repository with a commit in {root}, found none; runs work on commits: "
        "git init, git add and git commit first"
    )


def uncommitted(root: Path) -> int:
    """How many files differ from the last commit; runs do not see those changes."""
    command = ["git", "status", "--porcelain"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return len(done.stdout.splitlines())


def _has_remote(root: Path) -> bool:
    """Whether DVC's configuration in the repository names a default remote."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read([root / ".dvc" / "config", root / ".dvc" / "config.local"])
    return bool(parser.get("core", "remote", fallback=""))


def _local_remote(home: Path) -> Path:
    """A folder with the DVC configuration of a remote that is a folder here."""
    folder = home / "dvc"
    folder.mkdir(parents=True, exist_ok=True)
    text = f"[core]\n    remote = here\n['remote \"here\"']\n    url = {home / 'dvc-remote'}\n"
    (folder / "config").write_text(text)
    return folder


def gpu_slots(environment: Mapping[str, str]) -> int:
    """Size of the pool `gpu`: the GPUs of this machine, or one training at a time without any."""
    tool = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if tool is None:
        return 1
    done = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False)
    return max(1, sum(line.startswith("GPU ") for line in done.stdout.splitlines()))
