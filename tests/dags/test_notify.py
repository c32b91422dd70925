"""Messages go to real servers on this machine: a web server, a mail server, nobody."""

from __future__ import annotations

import http.server
import json
import logging
import socketserver
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from .conftest import ROOT

PAYLOAD = {"event": "failed", "dag": "retrain", "task": "train", "message": "no space\nleft"}


@pytest.fixture(scope="module")
def notify() -> Any:
    """The module under test, importable as in Airflow's processes."""
    if str(ROOT / "dags") not in sys.path:
        sys.path.insert(0, str(ROOT / "dags"))
    from flowsight_dags import notify

    return notify


@contextmanager
def serving(handler: Any) -> Iterator[int]:
    with socketserver.TCPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


class Mailbox(socketserver.StreamRequestHandler):
    """As much of SMTP as a sender needs."""

    got: list[str]

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        in_data = False
        for raw in self.rfile:
            line = raw.decode().rstrip("\r\n")
            self.got.append(line)
            if in_data:
                if line == ".":
                    in_data = False
                    self.wfile.write(b"250 taken\r\n")
            elif line.upper() == "DATA":
                in_data = True
                self.wfile.write(b"354 go on\r\n")
            elif line.upper() == "QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            else:
                self.wfile.write(b"250 ok\r\n")


def test_mail(notify: Any) -> None:
    handler = type("Handler", (Mailbox,), {"got": []})
    with serving(handler) as port:
        notify.send(f"smtp://127.0.0.1:{port}/?to=a@x.org,b@x.org&from=me@x.org", PAYLOAD)
    got = handler.got  # type: ignore[attr-defined]
    recipients = [line.lower() for line in got if line.lower().startswith("rcpt to:")]
    assert recipients == ["rcpt to:<a@x.org>", "rcpt to:<b@x.org>"]
    assert "Subject: flowsight: failed: retrain, train: no space left" in got
    assert "message: no space" in got


def test_webhook_that_refuses_is_an_error(notify: Any) -> None:
    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(500)

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Refuses) as port, pytest.raises(OSError, match="500"):
        notify.send(f"http://127.0.0.1:{port}/", PAYLOAD)


def test_webhook_gets_json_with_a_line_of_text(notify: Any) -> None:
    got: list[Any] = []

    class Takes(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, self.headers["Content-Type"], json.loads(body)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Takes) as port:
        notify.send(f"http://127.0.0.1:{port}/hooks/1", PAYLOAD)
    (path, kind, body) = got[0]
    assert (path, kind) == ("/hooks/1", "application/json")
    assert body == {**PAYLOAD, "text": "failed: retrain, train: no space\nleft"}


def context(**states: str) -> dict[str, Any]:
    """As much of a task's context as a notification reads."""
    ti = SimpleNamespace(
        dag_id="retrain",
        run_id="r",
        task_id="train",
        map_index=1,
        log_url="http://here/log",
        get_task_states=lambda **_: {"r": states},
    )
    return {"ti": ti, "exception": ValueError("no sense")}


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/", "gopher://x", "smtp://127.0.0.1:9/"])
def test_a_message_that_cannot_be_sent_is_a_warning(
    notify: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    address: str,
) -> None:
    monkeypatch.setenv("FLOWSIGHT_NOTIFY", address)
    with caplog.at_level(logging.WARNING):
        notify.tell("failed", context(), "no sense")
    assert "could not send the notification" in caplog.text


def test_only_the_first_failure_of_a_run_is_told(
    notify: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(notify, "tell", lambda event, *_: told.append(event))
    notify.Notify("failed").notify(context(train_1="failed", train_0="success"))
    assert told == ["failed"]
    notify.Notify("failed").notify(context(train_0="failed"))
    notify.Notify("failed").notify(context(frames="failed"))
    assert told == ["failed"]


def test_nobody_is_told_where_nothing_is_configured(
    notify: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    def missing(*_: Any) -> None:
        raise AirflowNotFoundException("no such connection")

    sent: list[str] = []
    monkeypatch.setattr(notify, "send", lambda address, _: sent.append(address))
    monkeypatch.setattr(Connection, "get", missing)
    notify.tell("failed", context(), "x")
    assert sent == []
    monkeypatch.undo()
    # Airflow's connection stands in for the variable
    monkeypatch.setattr(notify, "send", lambda address, _: sent.append(address))
    found = SimpleNamespace(get_uri=lambda: "https://chat.example/1")
    monkeypatch.setattr(Connection, "get", lambda _: found)
    notify.tell("failed", context(), "x")
    assert sent == ["https://chat.example/1"]
