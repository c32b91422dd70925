"""The DAGs of this repository as Airflow sees them: no error, the right edges, limits, light."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flowsight.pipeline import nodes

from .conftest import ROOT, copy_repository, load_dags

NODES = nodes.load(ROOT)
FILES = sorted((ROOT / "dags").glob("*.py"))


def test_all_dags_are_there(real_dags: dict[str, Any]) -> None:
    assert set(real_dags) == {"retrain", "ingest", "promote", "rollback", "housekeeping"}
    for dag in real_dags.values():
        assert dag.doc_md and dag.description and "flowsight" in dag.tags
        assert not dag.catchup
        assert all(task.owner == "flowsight" for task in dag.tasks), dag.dag_id
    assert real_dags["ingest"].is_paused_upon_creation


def test_edges_of_retrain_are_those_of_dvc_yaml(real_dags: dict[str, Any]) -> None:
    dag = real_dags["retrain"]
    ids = {node.task_id for node in NODES.values()}
    for node in NODES.values():
        before = dag.get_task(node.task_id).upstream_task_ids & ids
        assert before == {NODES[name].task_id for name in node.upstream}, node.name
    own = {"settings", "prepare", "gather", "publish"}
    plans = {f"plan.{node.task_id}" for node in NODES.values() if node.mapped}
    assert set(dag.task_ids) == ids | own | plans
    assert dag.get_task("code").upstream_task_ids == {"prepare"}
    assert dag.get_task("gather").upstream_task_ids == {"page"}


def test_tasks_ask_for_what_meta_says(real_dags: dict[str, Any]) -> None:
    train = real_dags["retrain"].get_task("train-two_stream")
    assert (train.pool, train.pool_slots, train.queue) == ("gpu", 1, "gpu")
    assert (train.retries, train.execution_timeout) == (3, timedelta(minutes=2880))
    assert train.retry_exponential_backoff == 2
    assert train.max_active_tis_per_dagrun == 16
    frames = real_dags["retrain"].get_task("frames")
    assert (frames.pool, frames.pool_slots, frames.queue) == ("default_pool", 1, "cpu")
    assert frames.task_display_name == "frames"
    check = real_dags["retrain"].get_task("validate-clips")
    assert check.task_display_name == "validate@clips"


def test_sections_are_boxes(real_dags: dict[str, Any]) -> None:
    groups = real_dags["retrain"].task_group.children
    assert {"section-data", "section-two_stream", "plan"} <= set(groups)
    assert set(groups["section-data"].children) >= {"frames", "validate-clips"}
    assert "page" in groups  # alone in its section: no box


def test_serialised_and_back(real_dags: dict[str, Any]) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    for dag in real_dags.values():
        text = json.dumps(DagSerialization.to_dict(dag))
        again = DagSerialization.from_dict(json.loads(text))
        assert set(again.task_ids) == set(dag.task_ids)


@pytest.mark.parametrize(
    ("form", "wrong"),
    [
        ({"dataset": "nothing"}, "nothing"),
        ({"recipe": "huge"}, "huge"),
        ({"systems": []}, "non-empty"),
        ({"systems": ["other"]}, "other"),
        ({"seed": -1}, "minimum"),
        ({"seed": "one"}, "one"),
        ({"overrides": "--force"}, "does not match"),
        ({"overrides": "threads=2 rm -rf"}, "does not match"),
        ({"overrides": "a=1\n" * 1000}, "too long"),
        ({"rev": "--upload-pack=x"}, "does not match"),
        ({"force": "yes"}, "yes"),
    ],
)
def test_forms_refuse(real_dags: dict[str, Any], form: dict[str, Any], wrong: str) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    params = real_dags["retrain"].params
    params.validate()  # the defaults are fine
    name, value = next(iter(form.items()))
    with pytest.raises(ParamValidationError, match=wrong):
        params.get_param(name).__copy__().resolve(value)


@pytest.mark.parametrize(
    "text",
    ["", "a=1", "systems.two_stream.rows.spatial.train.epochs=3\n\nsplits.ids=[1,2]\n"],
)
def test_form_takes_overrides(real_dags: dict[str, Any], text: str) -> None:
    param = real_dags["retrain"].params.get_param("overrides").__copy__()
    assert param.resolve(text) == text


def test_a_field_is_not_overridden_by_text(real_dags: dict[str, Any]) -> None:
    forms = sys.modules["flowsight_dags.forms"]
    form = {**real_dags["retrain"].params.dump(), "overrides": "threads=1\ndataset=ucf101"}
    with pytest.raises(ValueError, match="`dataset=ucf101` has a field of its own"):
        forms.settings(form)
    assert forms.run_id("manual__2026-01-02T03:04:05+00:00") == "manual-2026-01-02T03-04-05-00-00"


def test_retrain_waits_for_time_and_data(real_dags: dict[str, Any]) -> None:
    timetable = real_dags["retrain"].timetable
    assert timetable.timetable.expression == "0 0 * * 0"
    # turning it on must not start a training for a Sunday that is over
    assert timetable.timetable.run_immediately is False
    assert real_dags["retrain"].start_date is None
    assert timetable.asset_condition.name == "raw_data"
    assert real_dags["promote"].timetable.asset_condition.objects[0].name == "results"


def test_approval_shows_the_comparison(real_dags: dict[str, Any]) -> None:
    dag = real_dags["promote"]
    approve = dag.get_task("two_stream.approve")
    assert approve.upstream_task_ids == {"two_stream.compare"}
    assert approve.downstream_task_ids == {"two_stream.promote"}
    assert "two_stream.compare')['output']" in approve.body
    assert approve.defaults == ["Reject"] and approve.response_timeout == timedelta(days=7)
    assert approve.notifiers


def test_every_system_can_be_promoted_and_rolled_back(real_dags: dict[str, Any]) -> None:
    systems = {"two_stream", "residual3d", "background", "saliency"}
    promote, rollback = real_dags["promote"], real_dags["rollback"]
    assert set(promote.task_group.children) == systems
    assert set(promote.params["models"]) == systems
    assert set(rollback.params.get_param("model").schema["enum"]) == systems


def test_a_stage_more_is_a_task_more(tmp_path: Path) -> None:
    text = (ROOT / "dvc.yaml").read_text()
    added = (
        "  count:\n    cmd: wc\n    deps: ['results/two_stream', data/frames]\n"
        "    outs: [counted]\n"
        "    meta: {group: data, gpus: 1, memory_gb: 1, timeout_min: 7, queue: gpu, retries: 0}\n"
    )
    root = copy_repository(tmp_path, f"{text}\n{added}")
    (root / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    dag = load_dags(root)["retrain"]
    assert dag.get_task("count").upstream_task_ids == {"evaluate-two_stream"}
    assert dag.get_task("gather").upstream_task_ids == {"page", "count"}
    assert dag.get_task("count").execution_timeout == timedelta(minutes=7)
    # it stands after the training, so not in the box of the data that the training waits for
    assert "count" not in dag.task_group.children["section-data"].children
    dag.task_group.topological_sort()


def test_a_stage_may_not_take_a_task_of_the_dag(tmp_path: Path) -> None:
    root = copy_repository(tmp_path, "stages:\n  gather:\n    cmd: x\n    outs: [x]\n")
    with pytest.raises(ImportError, match=r"\['gather'\] are names of the DAG's own tasks"):
        load_dags(root)


@pytest.mark.parametrize(
    ("name", "value", "wrong"),
    [
        ("FLOWSIGHT_RUNNER", "slurm", "expected bash or kubernetes, got 'slurm'"),
        ("FLOWSIGHT_PROMOTION", "never", "expected approval or automatic"),
        ("FLOWSIGHT_RETRY_DELAY_SEC", "soon", "expected a number above 0, got 'soon'"),
        ("FLOWSIGHT_RETRAIN_SCHEDULE", "weekly", "expected @weekly, .* or off, got .weekly."),
    ],
)
def test_wrong_configuration_is_an_import_error(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, wrong: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ImportError, match=wrong):
        load_dags(ROOT)


def test_register_is_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWSIGHT_REGISTER", "1")
    monkeypatch.setenv("FLOWSIGHT_RETRAIN_SCHEDULE", "off")
    dag = load_dags(ROOT)["retrain"]
    assert dag.get_task("register").upstream_task_ids == {"gather", "registrations"}
    assert dag.get_task("publish").upstream_task_ids == {"gather", "register"}
    assert dag.timetable.asset_condition.objects[0].name == "raw_data"  # no clock any more


def test_parsing_loads_nothing_heavy_and_no_lock() -> None:
    code = """
import sys
import airflow.sdk, airflow.dag_processing.dagbag
before, opened = set(sys.modules), []
sys.addaudithook(lambda event, a: opened.append(str(a[0])) if event == "open" else None)
sys.path.insert(0, "dags")
for name in ("retrain", "ingest", "promote", "rollback", "housekeeping"):
    __import__(name)
heavy = {"torch", "pandas", "mlflow", "dvc", "cv2", "numpy", "kubernetes"}
assert not heavy & (set(sys.modules) - before), heavy & (set(sys.modules) - before)
assert any(name.endswith("dvc.yaml") for name in opened)
assert not [name for name in opened if name.endswith("dvc.lock")]
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env=os.environ)
