"""Tell people about failed, refused and waiting runs: a webhook or a mail; by default nobody.

`FLOWSIGHT_NOTIFY`, else Airflow's connection `flowsight_notify`, holds the address:

    https://chat.example/hooks/abc                                     POST of a JSON object
    smtp://user:password@mail.example:587/?to=a@x.org,b@x.org&from=airflow@x.org

A message that cannot be sent is a warning in the log, never a failed task.
"""

from __future__ import annotations

import json
import logging
import os
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from airflow.sdk import BaseNotifier
from airflow.sdk.definitions.context import Context

CONNECTION = "flowsight_notify"
TIMEOUT_SEC = 10

log = logging.getLogger(__name__)


class Notify(BaseNotifier):
    """Tell about a task: `failed` (or refused, which the exception says) or `waiting`."""

    def __init__(self, event: str) -> None:
        super().__init__()
        self.event = event

    def notify(self, context: Context) -> None:
        error = context.get("exception")
        if self.event == "failed":
            if not _first_failure(context):
                return
            # by name: the module may have been loaded twice, from two paths
            event = "refused" if type(error).__name__ == "GateRefused" else "failed"
            tell(event, context, str(error or "the task's process went away"))
        else:
            tell(self.event, context, str(getattr(context["task"], "subject", "an answer")))


def _first_failure(context: Context) -> bool:
    """Whether no other task of the run has failed: 200 failing shards are one message."""
    own = context["ti"]
    try:
        states = own.get_task_states(dag_id=own.dag_id, run_ids=[own.run_id]).get(own.run_id, {})
    except Exception:
        log.warning("could not ask for the states of the run; telling anyway", exc_info=True)
        return True
    names = {own.task_id, f"{own.task_id}_{own.map_index}"}
    return not any(state == "failed" for name, state in states.items() if name not in names)


def tell(event: str, context: Context, message: str) -> None:
    """Send one message about the task of a context; do nothing where no address is set.

    Args:
        event: failed, refused or waiting.
        context: of the task.
        message: one line.
    """
    ti = context["ti"]
    payload = {
        "event": event,
        "dag": ti.dag_id,
        "run_id": ti.run_id,
        "task": ti.task_id,
        "map_index": ti.map_index,
        "message": message,
        "url": str(getattr(ti, "log_url", "")),
    }
    try:
        address = _address()
        if address:
            send(address, payload)
    except Exception as error:  # a broken webhook must not break a training
        log.warning("could not send the notification: %s: %s", type(error).__name__, error)


def _address() -> str:
    configured = os.environ.get("FLOWSIGHT_NOTIFY", "")
    if configured:
        return configured
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        return Connection.get(CONNECTION).get_uri()
    except AirflowNotFoundException:
        return ""


def send(address: str, payload: Mapping[str, Any]) -> None:
    """Deliver a message.

    Raises:
        ValueError: the address is neither a webhook nor a mail server.
        OSError: nobody answers there, or not with success.
    """
    text = "{event}: {dag}, {task}: {message}".format(**payload)
    url = urlsplit(address)
    if url.scheme in ("http", "https"):
        _post(address, {**payload, "text": text})
    elif url.scheme in ("smtp", "smtps"):
        _mail(url, text, payload)
    else:
        raise ValueError(f"expected http, https, smtp or smtps, got {url.scheme!r}")


def _post(address: str, payload: Mapping[str, Any]) -> None:
    request = urllib.request.Request(
        address,
        data=json.dumps(payload).encode(),
        headers={"Content-Type": "application/json", "User-Agent": "flowsight"},
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_SEC):
        pass


def _mail(url: SplitResult, text: str, payload: Mapping[str, Any]) -> None:
    # here: every DAG file is parsed with this module
    import smtplib
    from email.message import EmailMessage

    query = parse_qs(url.query)
    if not query.get("to"):
        raise ValueError("expected ?to=address in the mail server's address")
    mail = EmailMessage()
    mail["To"] = query["to"][0]
    mail["From"] = query.get("from", ["flowsight@localhost"])[0]
    mail["Subject"] = f"flowsight: {' '.join(text.split())[:150]}"
    mail.set_content("\n".join(f"{name}: {value}" for name, value in payload.items()))
    kind = smtplib.SMTP_SSL if url.scheme == "smtps" else smtplib.SMTP
    with kind(url.hostname or "localhost", url.port or 0, timeout=TIMEOUT_SEC) as server:
        if url.username:
            if url.scheme == "smtp":
                server.starttls()
            server.login(unquote(url.username), unquote(url.password or ""))
        server.send_message(mail)
