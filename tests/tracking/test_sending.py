"""What MLflow has in the end, with a real server that goes away and a real SQLite file."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flowsight.tracking import spool
from flowsight.tracking.delivery import Delivery

from .conftest import Server, Store, Training, spools

pytestmark = pytest.mark.slow
BIN = Path(sys.executable).parent


def flowsight(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "flowsight"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def is_locked(path: Path) -> bool:
    """Whether a process sends a spool."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def epochs(store: Store, name: str) -> list[int]:
    return [step for step, _ in store.losses(name)]


def test_several_first_uses_of_a_file_at_once(
    tmp_path: Path, train: Callable[..., Training]
) -> None:
    """A finished, a failed and a killed one, below one run of the pipeline."""
    names = ("slow", "failed", "killed")
    slow, failed, killed = (train(name, FLOWSIGHT_RUN_ID="run-1") for name in names)
    store = Store(tmp_path / "mlflow.db")
    for training in (slow, failed, killed):
        training.epochs(3)
    killed.die()
    assert failed.process.stdin is not None
    failed.process.terminate()  # no word of its own, as killed
    measured = "select distinct key from metrics where key = 'system/cpu_utilization_percentage'"
    store.wait_for(lambda: bool(store.query(measured)))
    slow.end()
    ends = {"slow": "FINISHED", "failed": "KILLED", "killed": "KILLED", "run-1": "KILLED"}
    store.wait_for(lambda: store.runs() == ends)
    for name in names:
        assert epochs(store, name) == [1, 2, 3]
    children = store.query(
        "select count(*), count(distinct value) from tags where key = 'mlflow.parentRunId'"
    )
    assert children == [(3, 1)]
    run = "(select run_uuid from runs where name = 'slow')"
    assert store.query(f"select key, value from params where run_uuid = {run}") == [
        ("train.lr", "0.1")
    ]
    tags = dict(store.query(f"select key, value from tags where run_uuid = {run}"))
    assert tags["dataset"] == "toy" and len(tags["mlflow.source.git.commit"]) == 40
    places = store.query("select artifact_location from experiments where name = 'flowsight'")
    assert places == [((tmp_path / "mlruns").as_uri(),)]
    store.wait_for(lambda: spools(tmp_path) == [])


def test_a_server_that_goes_away_and_comes_back(
    server: Server, tmp_path: Path, train: Callable[..., Training]
) -> None:
    """For one training it comes back in time; for a finished and a killed one it does not."""
    store, folder = server.store, tmp_path / "build/scratch/.tracking"
    living, finished, killed = (train(name) for name in ("living", "finished", "killed"))
    living.epochs(2)
    store.wait_for(lambda: epochs(store, "living") == [1, 2])
    server.stop()
    begin = time.monotonic()
    for training, count in ((living, 3), (finished, 3), (killed, 2)):
        training.epochs(count)
    assert time.monotonic() - begin < 5  # nobody waits
    paths = {spool.Lines(path).start["name"]: path for path in spools(tmp_path)}
    logged = [m["time_ms"] for m in spool.Lines(paths["living"]).read()]
    killed.die()
    with paths["killed"].open("ab") as file:
        file.write(b'{"metrics": {"loss": 0.1')
    begin = time.monotonic()
    (line,) = finished.end().strip().splitlines()
    assert time.monotonic() - begin < 60
    assert line.startswith("tracking: ") and f"`flowsight tracking send {folder}` sends it" in line
    own = paths["killed"].with_suffix(".lock")
    store.wait_for(lambda: not is_locked(own))  # the process beside it has given up

    refused = flowsight("tracking", "send", str(folder))
    assert refused.returncode == 75 and "2 stay in" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert "living: not sent: its training goes on" in refused.stdout
    listed = flowsight("tracking", "list").stdout
    for says in ("5 epochs  training", "3 epochs  waiting", "2 epochs  waiting"):
        assert says in listed
    assert epochs(store, "finished") == epochs(store, "killed") == []

    server.start()
    command = [str(BIN / "flowsight"), "tracking", "send"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = "".join(one.communicate(timeout=120)[0] for one in both)
    assert [one.returncode for one in both] == [0, 0]
    assert said.count("finished: sent, 3 epochs") == said.count("killed: sent, 2 epochs") == 1
    assert epochs(store, "finished") == [1, 2, 3] and epochs(store, "killed") == [1, 2]
    lost = "select value from tags where key = 'flowsight.lost_lines'"
    assert store.query(lost) == [("1",)]

    store.wait_for(lambda: epochs(store, "living") == [1, 2, 3, 4, 5])
    assert store.runs()["living"] == "RUNNING"  # it was sent while the training goes on
    living.epochs()
    assert living.end() == ""
    ends = {"living": "FINISHED", "finished": "FINISHED", "killed": "KILLED"}
    assert ends.items() <= store.runs().items()
    stored = store.losses("living")
    assert [step for step, _ in stored] == [1, 2, 3, 4, 5, 6]
    assert [time_ms for _, time_ms in stored[:5]] == logged
    assert list(folder.iterdir()) == [] and not (tmp_path / "mlflow.db").exists()
    assert "nothing waits" in flowsight("tracking", "send").stdout


def test_the_next_training_sends_what_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: Callable[..., Training]
) -> None:
    store = Store(tmp_path / "mlflow.db")
    start = {"name": "before", "uri": f"sqlite:///{store.path}", "params": {}, "tags": {}}
    folder = tmp_path / "build/scratch/.tracking"
    for name, uri in (("before", start["uri"]), ("elsewhere", "http://127.0.0.1:9")):
        kept = spool.Spool(folder, {**start, "name": name, "uri": uri, "host": os.uname().nodename})
        kept.log({"loss": 1.0}, 1)
        kept.close("FINISHED")
    spool.Spool(folder, {**start, "name": "another machine's", "host": "far away"})._file.close()
    training = train("now")
    training.epochs()
    store.wait_for(lambda: store.runs() == {"before": "FINISHED", "now": "RUNNING"})
    training.end()
    assert store.runs() == {"before": "FINISHED", "now": "FINISHED"}
    left = {spool.Lines(path).start["name"]: path for path in spools(tmp_path)}
    assert set(left) == {"elsewhere", "another machine's"}
    # it counts as killed when nothing came for an hour
    silent = time.time() - 3700
    os.utime(left["another machine's"], (silent, silent))
    assert Delivery(left["another machine's"]).advance()
    assert store.runs()["another machine's"] == "KILLED"


def test_sent_again_after_an_answer_was_lost(tmp_path: Path) -> None:
    """The worst case of every step: done, but the sender does not know."""
    from mlflow import MlflowClient

    store = Store(tmp_path / "mlflow.db")
    uri = f"sqlite:///{store.path}"
    kept = spool.Spool(tmp_path, {"name": "x", "uri": uri, "params": {"a": "1"}, "tags": {}})
    for epoch in range(1, 1500):  # more than one batch
        kept.log({"loss": 1 / epoch}, epoch)
    first = Delivery(kept.path)
    assert not first.advance() and store.runs() == {"x": "RUNNING"}
    first.start_over()
    first.advance()
    # a second run of the same spool, as from a request that took effect late
    client = MlflowClient(uri)
    one = client.search_runs(["1"])[0]
    client.create_run("1", tags={"flowsight.spool": one.data.tags["flowsight.spool"]}, run_name="y")
    again = Delivery(kept.path)
    again.advance()
    kept.close("FINISHED")
    copied = kept.path.read_bytes()
    assert again.advance() and not kept.path.exists()
    kept.path.write_bytes(copied)  # killed before it was removed
    last = Delivery(kept.path)
    assert last.advance() and not kept.path.exists()
    (name,) = store.runs()
    assert store.runs() == {name: "FINISHED"}
    assert epochs(store, name) == list(range(1, 1500))
    # deleted by a person: it does not come back
    (run,) = client.search_runs(["1"])
    client.delete_run(run.info.run_id)
    kept.path.write_bytes(copied)
    assert Delivery(kept.path).advance() and store.runs() == {}


def test_several_processes_of_a_training_log_once(tmp_path: Path) -> None:
    """Two of torch's, joined by gloo, as `torchrun` starts them."""
    program = tmp_path / "train.py"
    program.write_text(
        "import torch, torch.distributed as dist\n"
        "from flowsight import tracking\n"
        "dist.init_process_group('gloo')\n"
        "with tracking.run('both', params={}, tags={}) as log:\n"
        "    for epoch in (1, 2, 3):\n"
        "        loss = torch.tensor(float(dist.get_rank()))\n"
        "        dist.all_reduce(loss)\n"
        "        log({'loss': loss.item()}, epoch)\n"
        f"open(f'{tmp_path}/rank{{dist.get_rank()}}', 'w').close()\n"
        "dist.barrier()\n"
        # without it gloo's threads may find the other process gone while this one exits, and abort
        "dist.destroy_process_group()\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-addr", "127.0.0.1", "--standalone", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[:4000]  # a process's own words come first
    # not printed: two processes' words on one pipe run into each other
    assert len(list(tmp_path.glob("rank*"))) == 2
    store = Store(tmp_path / "mlflow.db")
    assert store.runs() == {"both": "FINISHED"}
    assert store.query("select step, value from metrics where key = 'loss' order by step") == [
        (epoch, 1.0) for epoch in (1, 2, 3)
    ]
