"""Airflow's REST API, as far as one machine's own tools need it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

TIMEOUT_SEC = 60


def ask(url: str, body: Any = None, *, token: str = "", method: str | None = None) -> Any:
    """The answer, as JSON where it is JSON, else as text.

    Args:
        url: where.
        body: sent as JSON, by POST unless the method says otherwise.
        token: of a log-in.
        method: HTTP method.

    Raises:
        urllib.error.HTTPError: the server refused.
        OSError: nobody answered.
    """
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=TIMEOUT_SEC) as answer:
        text = answer.read().decode(errors="replace")
    try:
        return json.loads(text)
    except ValueError:
        return text


def try_ask(url: str, body: Any = None, *, token: str = "") -> Any:
    """As `ask`; None where nobody answers, or not with success."""
    try:
        return ask(url, body, token=token)
    except (urllib.error.URLError, OSError):
        return None


@dataclass(frozen=True)
class Airflow:
    """A server and a log-in to it."""

    url: str
    user: str
    password: str = field(repr=False)

    @cached_property
    def token(self) -> str:
        """Of one log-in; good for a day.

        Raises:
            urllib.error.HTTPError: 401, where user or password are wrong.
            OSError: nobody answered.
        """
        body = {"username": self.user, "password": self.password}
        return ask(f"{self.url}/auth/token", body)["access_token"]

    def get(self, path: str) -> Any:
        """What stands at a path below `/api/v2`."""
        return ask(f"{self.url}/api/v2{path}", token=self.token)

    def unpause(self, dag: str) -> None:
        """Let a DAG's runs start."""
        path = f"{self.url}/api/v2/dags/{dag}"
        ask(path, {"is_paused": False}, token=self.token, method="PATCH")

    def trigger(self, dag: str, form: dict[str, Any]) -> str:
        """Start a run by hand and give its id.

        Raises:
            urllib.error.HTTPError: 400, where the form has a value that it does not take.
        """
        # the API wants the date said, if only to say that there is none
        body = {"logical_date": None, "conf": form}
        path = f"{self.url}/api/v2/dags/{dag}/dagRuns"
        return ask(path, body, token=self.token)["dag_run_id"]
