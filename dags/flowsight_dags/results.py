"""Where the results of a run are, and the note that says so on the run's page."""

from __future__ import annotations

import json
import logging
import urllib.request
from typing import Any
from urllib.parse import quote

from flowsight_dags import config

CONNECTION = "flowsight_airflow"
TIMEOUT_SEC = 10

log = logging.getLogger(__name__)


def where(gathered: dict[str, Any]) -> str:
    """One line a person can follow.

    Args:
        gathered: what `flowsight gather` printed.
    """
    run, commit = gathered["run_id"], gathered["commit"]
    link = config.load().results_url.format(run_id=run, commit=commit)
    fetch = f"`git checkout runs/{run} && dvc pull results`, then open results/report/index.html"
    return f"results: {link}" if link else f"results of commit {commit[:12]}: {fetch}"


def note_run(dag_id: str, run_id: str, note: str) -> None:
    """Write a note on a run through Airflow's REST API.

    Tasks cannot do that by themselves, so a log-in is needed: Airflow's connection
    `flowsight_airflow` (`http://user:password@host:port`). Without it, or when it fails, the text
    stands in the task's log and XCom only.
    """
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        login = Connection.get(CONNECTION)
    except AirflowNotFoundException:
        return
    base = f"{login.schema or login.conn_type}://{login.host}:{login.port}"
    path = f"/api/v2/dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}"
    try:
        credentials = {"username": login.login, "password": login.password}
        token = _request("POST", f"{base}/auth/token", credentials)["access_token"]
        _request("PATCH", base + path, {"note": note}, token)
    except (OSError, ValueError, KeyError) as error:
        log.warning("could not write the run's note: %s: %s", type(error).__name__, error)


def _request(method: str, url: str, body: dict[str, Any], token: str = "") -> dict[str, Any]:
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)
    with urllib.request.urlopen(request, timeout=TIMEOUT_SEC) as answer:
        return json.load(answer)
