"""The DAGs run, with a `flowsight` that does as told: order, skips, retries, what is handed on."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import PREPARED, Fake, load_dags, states

RUN = ["--rev", "abc123", "--run-id", "r1"]


def failure_of(run: Any, task: str) -> str:
    """What a task said when it failed, as its page shows it."""
    return run.get_task_instance(task).xcom_pull(task, key="failure")


def events(asset: str) -> list[dict[str, Any]]:
    """What was said with each event of an asset."""
    from airflow import settings
    from airflow.models.asset import AssetEvent, AssetModel

    with settings.Session() as session:
        query = session.query(AssetEvent).join(AssetModel, AssetEvent.asset_id == AssetModel.id)
        return [event.extra for event in query.filter(AssetModel.name == asset).all()]


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """A real web server that collects what is posted to it."""
    got: list[dict[str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("FLOWSIGHT_NOTIFY", f"http://127.0.0.1:{server.server_port}/hook")
    yield got
    server.shutdown()
    server.server_close()


def test_retrain_runs_every_stage_in_order(dags: dict[str, Any], fake: Fake) -> None:
    epochs = "systems.two_stream.rows.spatial.train.epochs=3"
    form = {"seed": 7, "force": True, "overrides": f"{epochs}\nthreads=2"}
    run = dags["retrain"].test(run_conf={**form, "systems": ["two_stream"]})
    assert run.state == "success", states(run)
    prepare, *stages, gather = fake.calls
    assert prepare[:2] == ["prepare", "--run-id"] and prepare[2].startswith("manual-20")
    assert prepare[3:5] == ["--rev", "main"]
    assert prepare[5:] == [
        *("--set", "dataset=sample", "--set", "recipe=sample", "--set", "seed=7"),
        *("--set", "systems=two_stream"),
        *("--set", epochs, "--set", "threads=2"),
    ]
    names = [call[1] for call in stages]
    assert names[0] == "check@first"
    assert set(names[1:3]) == {"make@0", "make@1"}
    assert names[3:] == ["check@second", "fit@spatial-1", "show"]
    assert all(call[2:] == [*RUN, "--force"] for call in stages)
    assert gather == ["gather", *RUN]
    where = run.get_task_instance("publish").xcom_pull("publish")
    assert "runs/r1" in where and "def456def456" in where
    assert events("results")[-1]["systems"] == ["two_stream"]
    assert events("results")[-1]["commit"] == "def456def456def"
    shown = [ti.rendered_map_index for ti in run.get_task_instances() if ti.task_id == "make"]
    assert sorted(shown) == ["make@0", "make@1"]


def test_failed_stage_stops_what_needs_it_and_is_told_once(
    dags: dict[str, Any], fake: Fake, webhook: list[dict[str, Any]]
) -> None:
    fake.exits("make@0", 2)
    fake.exits("make@1", 2)
    run = dags["retrain"].test()
    assert run.state == "failed"
    seen = states(run)
    assert seen["check-first"] == "success"
    assert seen["make[0]"] == seen["make[1]"] == "failed"
    assert seen["check-second"] == seen["gather"] == "upstream_failed"
    assert fake.ran("make@0") == fake.ran("make@1") == 1  # neither is worth a retry
    assert [note["event"] for note in webhook] == ["failed"]
    assert webhook[0]["task"] == "make" and webhook[0]["dag"] == "retrain"
    assert "input refused (exit code 2): expected sense in make@" in webhook[0]["message"]


@pytest.mark.slow
def test_group_without_instances_is_skipped_and_the_rest_runs(
    dags: dict[str, Any], fake: Fake
) -> None:
    fake.answer("prepare", {**PREPARED, "groups": {**PREPARED["groups"], "fit": []}})
    run = dags["retrain"].test()
    assert run.state == "success"
    assert states(run)["fit"] == "skipped"
    assert fake.ran("show") == 1 and fake.calls[-1][0] == "gather"


@pytest.mark.parametrize(
    ("codes", "calls", "state"),
    [
        ((1,), 1, "failed"),
        ((2,), 1, "failed"),
        ((3,), 1, "failed"),
        ((75, 75), 3, "success"),
        ((-9,), 2, "success"),
        pytest.param((137,), 2, "success", marks=pytest.mark.slow),
        pytest.param((75, 75, 75, 75, 75), 4, "failed", marks=pytest.mark.slow),
    ],
)
def test_exit_codes_decide_about_retries(
    dags: dict[str, Any], fake: Fake, codes: tuple[int, ...], calls: int, state: str
) -> None:
    fake.exits("gc", *codes)
    run = dags["housekeeping"].test()
    assert run.state == state
    assert len(fake.calls) == calls
    assert fake.calls[0] == ["gc", "--keep-days", "30"]
    if state == "failed":
        assert "expected sense in gc" in failure_of(run, "gc")


@pytest.mark.slow
def test_killed_command_says_so(
    dags: dict[str, Any], fake: Fake, webhook: list[dict[str, Any]]
) -> None:
    fake.exits("gc", -9, -9, -9, -9)
    assert dags["housekeeping"].test().state == "failed"
    assert "killed by SIGKILL" in webhook[0]["message"]
    assert len(webhook) == 1  # retries are not told


def test_refusal_of_a_gate_is_told_as_one(
    dags: dict[str, Any], fake: Fake, webhook: list[dict[str, Any]]
) -> None:
    fake.exits("rollback", 3)
    dags["rollback"].test(run_conf={"model": "residual3d"})
    assert fake.calls == [["rollback", "residual3d"]]
    assert [note["event"] for note in webhook] == ["refused"]


def test_ingest_tells_only_of_new_data(
    dags: dict[str, Any], fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.answer("ingest", {"added": [], "quarantined": {"x.avi": "no frames"}, "commit": None})
    run = dags["ingest"].test(run_conf={"drop": "/data/my drop; rm -rf x"})
    assert (run.state, states(run)["announce"]) == ("success", "skipped")
    assert fake.calls[0][:3] == ["ingest", "--drop", "/data/my drop; rm -rf x"]
    assert events("raw_data") == []
    added = {"added": ["a/x.avi"], "quarantined": {}, "commit": "c0ffee"}
    fake.answer("ingest", added)
    assert dags["ingest"].test().state == "success"
    assert events("raw_data") == [{"dataset": "sample", "added": ["a/x.avi"], "commit": "c0ffee"}]


@pytest.fixture
def automatic(airflow_database: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The DAGs where the gate alone decides."""
    monkeypatch.setenv("FLOWSIGHT_PROMOTION", "automatic")
    return load_dags(airflow_database)


def test_promotion_without_a_person(
    automatic: dict[str, Any], fake: Fake, webhook: list[dict[str, Any]]
) -> None:
    fake.exits("promote-two_stream-dry", 3)
    run = automatic["promote"].test()
    seen = states(run)
    assert run.state == "success"
    assert seen["two_stream.compare"] == seen["two_stream.promote"] == "skipped"
    assert seen["residual3d.promote"] == "success"
    assert ["promote", "residual3d"] in fake.calls
    assert ["promote", "two_stream"] not in fake.calls
    assert [note["event"] for note in webhook] == ["refused"]
    assert "gate refused (exit code 3)" in failure_of(run, "two_stream.compare")


def test_promotion_of_one_model_only(automatic: dict[str, Any], fake: Fake) -> None:
    automatic["promote"].test(run_conf={"models": ["residual3d"]})
    assert fake.calls == [["promote", "residual3d", "--dry-run"], ["promote", "residual3d"]]
