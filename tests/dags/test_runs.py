"""The DAGs run, with a `flowsight` that does as told: order, skips, retries, what is handed on."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import PREPARED, Fake, states

RUN = ["--rev", "abc123", "--run-id", "r1"]


def test_retrain_runs_every_stage_in_order(dags: dict[str, Any], fake: Fake) -> None:
    run = dags["retrain"].test(run_conf={"seed": 7, "overrides": "rows.spatial.train.epochs=3"})
    assert run.state == "success", states(run)
    prepare, *stages, gather = fake.calls
    assert prepare[0] == "prepare"
    assert prepare[-8:] == [
        *("--set", "dataset=sample", "--set", "recipe=sample"),
        *("--set", "seed=7", "--set", "rows.spatial.train.epochs=3"),
    ]
    names = [call[1] for call in stages]
    assert names[0] == "check@first"
    assert set(names[1:3]) == {"make@0", "make@1"}
    assert names[3:] == ["check@second", "fit@spatial-1", "show"]
    assert all(call[2:] == RUN for call in stages)
    assert gather == ["gather", *RUN]
    where = run.get_task_instance("publish").xcom_pull("publish")
    assert "runs/r1" in where and "def456def456" in where
