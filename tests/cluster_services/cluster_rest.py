"""What Airflow and MLflow are asked and told over REST."""

from __future__ import annotations

import base64
import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(kw_only=True)
class Rest:
    """The two servers' addresses and how to log in."""

    folder: Path
    ports: dict[str, int] = field(default_factory=dict)
    password: str = field(default_factory=lambda: secrets.token_hex(8))
    token: str = ""

    @property
    def mlflow_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['mlflow']}"

    def log_in(self, user: str, password: str) -> str:
        answer = self.request("POST", "/auth/token", {"username": user, "password": password})
        return str(answer["access_token"])

    def get(self, path: str) -> Any:
        return self.request("GET", path)

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """One call; raises urllib.error.HTTPError for an answer of 400 and above."""
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports['airflow']}{path}",
            method=method,
            headers=headers,
            data=None if body is None else json.dumps(body).encode(),
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def ask_mlflow(self, path: str, body: Any = None) -> Any:
        """One call of MLflow's REST interface, as its administrator."""
        login = base64.b64encode(f"admin:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
        url = f"{self.mlflow_url}/api/2.0/mlflow/{path}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def mlflow_runs(self) -> list[dict[str, Any]]:
        """Every run of the server, each with its info and data."""
        found = self.ask_mlflow("experiments/search", {"max_results": 100}).get("experiments", [])
        ids = [experiment["experiment_id"] for experiment in found]
        return list(self.ask_mlflow("runs/search", {"experiment_ids": ids}).get("runs", []))

    def runs(self, dag: str) -> list[dict[str, Any]]:
        """Every run of a DAG."""
        return list(self.get(f"/api/v2/dags/{dag}/dagRuns")["dag_runs"])

    def trigger(self, dag: str, run_id: str, conf: Mapping[str, Any]) -> None:
        body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf)}
        self.request("POST", f"/api/v2/dags/{dag}/dagRuns", body)

    def unpause(self, dag: str) -> bool:
        """Whether the DAG is there (parsed) and now runs."""
        try:
            self.request("PATCH", f"/api/v2/dags/{dag}", {"is_paused": False})
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return False
            raise
        return True

    def run_state(self, dag: str, run_id: str) -> str:
        return str(self.get(f"/api/v2/dags/{dag}/dagRuns/{run_id}")["state"])

    def tasks(self, dag: str, run_id: str) -> list[dict[str, Any]]:
        path = f"/api/v2/dags/{dag}/dagRuns/{run_id}/taskInstances?limit=500"
        return list(self.get(path)["task_instances"])

    def task_log(self, run_id: str, task_id: str) -> str:
        """The last lines of every log of a task, for the message of a failing test."""
        found = sorted(
            (self.folder / "task-logs").rglob(f"*run_id={run_id}/task_id={task_id}/**/*")
        )
        texts = [f"{p.name}: {p.read_text(errors='replace')[-2500:]}" for p in found if p.is_file()]
        return "\n".join(texts)
