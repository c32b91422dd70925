"""A spool's way into MLflow, in steps that may all be done again.

The run is found by the spool's id, which is a tag of it; MLflow stores a metric of the same step,
time and value once. So after whatever went wrong everything is sent again from the first line.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsight.tracking import nesting, place, spool

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

SPOOL = "flowsight.spool"
LOST = "flowsight.lost_lines"
_MOST_METRICS = 1000
_MOST_PARAMS = 100
_LONGEST_PARAM = 6000
_FOREIGN_SILENCE_SEC = 3600.0
"""Locks may not reach other machines: a spool of one is over when nothing came for so long."""

Message = Mapping[str, Any]


class Delivery:
    """One spool's; the caller has claimed it."""

    def __init__(self, path: Path, uri: str | None = None) -> None:
        """Open the spool.

        Args:
            path: of the spool.
            uri: where to send it; None: where it was meant for.

        Raises:
            OSError, InputError: as `spool.Lines`.
        """
        self.path = path
        self.lines = spool.Lines(path)
        self.start = self.lines.start
        self.uri = uri or place.with_login(self.start["uri"])
        self.num_steps = 0
        self.extra: deque[Message] = deque(maxlen=20_000)
        """Metrics that are in no spool; another thread may append."""
        self._pending: list[Message] = []
        self._target: _Target | None = None

    def start_over(self) -> None:
        """After an error: what was sent may or may not have arrived."""
        self.lines.close()
        self.lines = spool.Lines(self.path)
        self._pending, self._target, self.num_steps = [], None, 0

    def advance(self) -> bool:
        """Send what is new.

        Returns:
            Whether MLflow has all of it; the spool is gone then.

        Raises:
            Exception: whatever a server or a database may raise; `start_over` before the next try.
        """
        is_complete = self.is_complete()
        end = next((m for m in self._pending if "end" in m), None)
        if self._target is None:
            self._target = _open(self.start, self.uri)
        self._send_metrics(self._target)
        if not is_complete:
            return False
        if self.lines.has_rest or self.lines.lost:
            lost = self.lines.lost + self.lines.has_rest
            self._target.client.set_tag(self._target.run, LOST, str(lost))
        at_ms = round(self.path.stat().st_mtime * 1000)
        _end(self._target, end or {"end": "KILLED", "time_ms": at_ms})
        self.lines.close()
        self.path.unlink(missing_ok=True)
        return True

    def is_complete(self) -> bool:
        """Read on; whether nothing more will come."""
        is_over = self._is_over()  # before reading: nothing comes after
        self._pending += self.lines.read()
        return is_over or any("end" in message for message in self._pending)

    def _is_over(self) -> bool:
        if spool.is_written(self.path):
            return False
        silent_sec = time.time() - self.path.stat().st_mtime
        return self.start.get("host") == socket.gethostname() or silent_sec > _FOREIGN_SILENCE_SEC

    def _send_metrics(self, target: _Target) -> None:
        own = [message for message in self._pending if "metrics" in message]
        extra = list(self.extra)
        if target.is_deleted or not (own or extra):
            return
        metrics = [metric for message in (*own, *extra) for metric in _metrics(message)]
        for begin in range(0, len(metrics), _MOST_METRICS):
            target.client.log_batch(target.run, metrics=metrics[begin : begin + _MOST_METRICS])
        self.num_steps += len(own)
        self._pending = [message for message in self._pending if "metrics" not in message]
        with contextlib.suppress(IndexError):  # a full one drops its oldest by itself
            for _ in extra:
                self.extra.popleft()


class _Target:
    """The run that a spool is sent to."""

    def __init__(self, client: MlflowClient, experiment: str, run: str, spool: str) -> None:
        self.client, self.experiment, self.run, self.spool = client, experiment, run, spool
        self.parent: str | None = None
        self.is_deleted = False


def _metrics(message: Message) -> list[Metric]:
    from mlflow.entities import Metric

    time_ms, step = message["time_ms"], message["step"]
    return [Metric(name, float(v), time_ms, step) for name, v in message["metrics"].items()]


def _open(start: Message, uri: str) -> _Target:
    """Find or make the run, with its parameters, its data set and its parent."""
    from mlflow import MlflowClient

    with place.store_lock(uri):
        client = MlflowClient(tracking_uri=uri)
        experiment = place.experiment_id(client, uri)
        target = _find_or_make(client, experiment, start)
        if target.is_deleted:
            return target
        if start.get("run_id"):
            target.parent = nesting.join(client, experiment, target.run, start)
            nesting.settle(client, experiment, target.parent)
    _describe(client, target.run, start)
    return target


def _runs_of(client: MlflowClient, experiment: str, spool: str) -> list[Run]:
    from mlflow.entities import ViewType

    condition = f"tags.`{SPOOL}` = '{spool}'"
    return list(client.search_runs([experiment], condition, run_view_type=ViewType.ALL))


def _find_or_make(client: MlflowClient, experiment: str, start: Message) -> _Target:
    found = _runs_of(client, experiment, start["id"])
    active = sorted(r.info.run_id for r in found if r.info.lifecycle_stage == "active")
    if found and not active:  # by a person, who does not want it back
        target = _Target(client, experiment, found[0].info.run_id, start["id"])
        target.is_deleted = True
        return target
    if not active:
        tags = {**start["tags"], SPOOL: start["id"]}
        made = client.create_run(
            experiment, start_time=start["time_ms"], tags=tags, run_name=start["name"]
        )
        active = [made.info.run_id]
    for double in active[1:]:  # a request whose answer was lost came to effect
        client.delete_run(double)
    return _Target(client, experiment, active[0], start["id"])


def _describe(client: MlflowClient, run: str, start: Message) -> None:
    from mlflow.entities import Param

    params = [Param(name, value[:_LONGEST_PARAM]) for name, value in start["params"].items()]
    for begin in range(0, len(params), _MOST_PARAMS):
        client.log_batch(run, params=params[begin : begin + _MOST_PARAMS])
    if start.get("datasets"):
        client.log_inputs(run, datasets=_inputs(start["datasets"]))


def _inputs(datasets: Sequence[Mapping[str, str]]) -> list[Any]:
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import DatasetInput, InputTag

    found = []
    for one in datasets:
        # the repository and DVC bring it; no address of its own
        source = CodeDatasetSource({"path": one["path"], "dvc": one["digest"]})
        known = MetaDataset(source, name=one["name"], digest=one["digest"][:36])
        tags = [InputTag("mlflow.data.context", one["context"])]
        found.append(DatasetInput(known._to_mlflow_entity(), tags))
    return found


def _end(target: _Target, end: Message) -> None:
    if target.is_deleted:
        return
    for double in _runs_of(target.client, target.experiment, target.spool):
        if double.info.run_id != target.run and double.info.lifecycle_stage == "active":
            target.client.delete_run(double.info.run_id)
    target.client.set_terminated(target.run, end["end"], end["time_ms"])
    if target.parent is not None:
        with place.store_lock(target.client.tracking_uri):
            parent = target.client.get_run(target.run).data.tags.get(nesting.PARENT, target.parent)
            nesting.settle(target.client, target.experiment, parent)
