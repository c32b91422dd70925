"""One parent for a run of the pipeline, whoever comes first."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path
from typing import Any

import pytest

from flowsight.tracking import nesting, place, spool
from flowsight.tracking.delivery import Delivery

from .conftest import Server, Store

pytestmark = pytest.mark.slow


class Racing:
    """A client whose runs are made only when all racers have seen that there is none."""

    def __init__(self, client: Any, start: threading.Barrier) -> None:
        self.client, self.start = client, start

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def create_run(self, *arguments: Any, **options: Any) -> Any:
        self.start.wait(60)
        return self.client.create_run(*arguments, **options)


@pytest.mark.parametrize("num_racers", [2, 5])
def test_all_who_make_a_parent_at_once_end_below_one(server: Server, num_racers: int) -> None:
    """On a server there is no lock: the worst case, each makes one."""
    from mlflow import MlflowClient

    client = MlflowClient(server.url)
    experiment = place.experiment_id(client, server.url)
    run_id = f"run-{uuid.uuid4().hex[:8]}"
    start = {"run_id": run_id, "time_ms": spool.now_ms(), "tags": {"dataset": "toy"}}
    names = [f"{run_id}-{k}" for k in range(num_racers)]
    children = [client.create_run(experiment, run_name=name) for name in names]
    barrier = threading.Barrier(num_racers)
    racers = [
        threading.Thread(
            target=nesting.join,
            args=(Racing(client, barrier), experiment, child.info.run_id, start),
        )
        for child in children
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    parents = client.search_runs([experiment], f"tags.`flowsight.run_id` = '{run_id}'")
    assert len(parents) == 1
    found = {client.get_run(c.info.run_id).data.tags[nesting.PARENT] for c in children}
    assert found == {parents[0].info.run_id}
    made = "select count(*) from tags where key = 'flowsight.run_id' and value = "
    assert server.store.query(f"{made}'{run_id}'") == [(num_racers,)]  # the race took place


def test_a_parent_follows_its_children(tmp_path: Path) -> None:
    """Running while one is; a stage that was killed and then finished counts as finished."""
    store = Store(tmp_path / "mlflow.db")
    start = {"uri": f"sqlite:///{store.path}", "params": {}, "tags": {}, "run_id": "run-1"}

    def training(name: str) -> tuple[spool.Spool, Delivery]:
        kept = spool.Spool(tmp_path, {**start, "name": name, "host": "here"})
        sent = Delivery(kept.path)
        assert not sent.advance()
        return kept, sent

    first, first_sent = training("train@a")
    second, second_sent = training("train@b")
    assert store.runs()["run-1"] == "RUNNING"
    first.close("FAILED")
    assert first_sent.advance() and store.runs()["run-1"] == "RUNNING"
    second.close("FINISHED")
    assert second_sent.advance() and store.runs()["run-1"] == "FAILED"
    again, again_sent = training("train@a")
    assert store.query("select status from runs where name = 'run-1'") == [("RUNNING",)]
    again.close("FINISHED")
    assert again_sent.advance()
    assert store.query("select status from runs where name = 'run-1'") == [("FINISHED",)]
