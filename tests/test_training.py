"""Training through Lightning: it learns, it repeats itself, it goes on after a kill."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flowsight.batches.params import InputParams
from flowsight.classifiers import networks
from flowsight.classifiers import params as rows
from flowsight.classifiers.params import NetworkParams, RowParams, StartParams
from flowsight.errors import InputError, ResourceError
from flowsight.nn import checkpoint
from flowsight.params import config
from flowsight.params.training import TrainParams
from flowsight.systems.residual3d import network as residual3d
from flowsight.systems.two_stream import network as two_stream
from flowsight.training import loop, resume
from flowsight.training.schedule import Epoch

ROOT = Path(__file__).resolve().parents[1]

ROW = RowParams(
    start=StartParams(),
    network=NetworkParams(
        backbone="tiny", dropout=0.3, map_channel=True, target_layers=("layer4",)
    ),
    input=InputParams(
        modality="flow",
        stack_length=2,
        num_segments=2,
        resize_px=30,
        crop_px=24,
        scales=(1.0, 0.875),
        flip=True,
        map_value=0.1,
    ),
    train=TrainParams(
        epochs=4,
        samples_per_epoch=1,
        batch_size=4,
        accumulate=1,
        optimizer="adamw",
        lr=0.003,
        momentum=0.9,
        weight_decay=0.01,
        schedule="cosine",
        milestones=(),
        gamma=0.1,
        patience=None,
        precision="32-true",
        devices=1,
    ),
    test=rows.TestParams(num_views=3, num_crops=10),
)


def changed(row: RowParams = ROW, **train: Any) -> RowParams:
    return dataclasses.replace(row, train=dataclasses.replace(row.train, **train))


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLOWSIGHT_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.delenv("FLOWSIGHT_MICRO_BATCH", raising=False)
    monkeypatch.delenv("FLOWSIGHT_WORKERS", raising=False)
    return tmp_path / "scratch"


Result = tuple[dict[str, Tensor], list[Epoch]]


def fit(toy: Any, row: RowParams = ROW, **options: Any) -> Result:
    params = dataclasses.replace(config.load(ROOT / "params.yaml"), threads=1, seed=1)
    options = {"packs": toy.flow, "split": toy.split, "scratch_key": "train/key", **options}
    options.setdefault("model", two_stream)
    options.setdefault("log", lambda metrics, step: None)
    result = loop.fit(row=row, row_name="temporal", params=params, manifest=toy.manifest, **options)
    resume.discard(options["scratch_key"])
    return result


def as_bytes(state: Mapping[str, Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def test_learns_two_classes(toy: Any) -> None:
    logged: list[tuple[int, Mapping[str, float]]] = []
    row = changed(epochs=8)
    state, history = fit(toy, row, log=lambda metrics, step: logged.append((step, metrics)))
    assert [epoch.epoch for epoch in history] == list(range(1, 9))
    assert history[-1].train_loss < 0.5 * history[0].train_loss
    assert history[-1].val_accuracy == 1.0
    assert history[0].lr == 0.003 > history[-1].lr
    assert [step for step, _ in logged] == list(range(1, 9))
    assert logged[0][1]["train_loss"] == history[0].train_loss
    networks.build(two_stream, row, 2).load_state_dict(state)
    assert all(tensor.is_contiguous() for tensor in state.values())


def test_twice_the_same_bytes_whatever_reads(
    toy: Any, monkeypatch: pytest.MonkeyPatch, scratch: Path
) -> None:
    once = fit(toy)
    monkeypatch.setenv("FLOWSIGHT_WORKERS", "2")
    torch.manual_seed(12345)  # the caller's state of chance does not matter
    twice = fit(toy)
    assert as_bytes(once[0]) == as_bytes(twice[0]) and once[1] == twice[1]
    assert not list(scratch.rglob("*.ckpt")), "nothing is left behind"


# a network over clips of frames; gradients of two batches make a step
OVER_TIME = dataclasses.replace(
    ROW,
    network=NetworkParams(
        backbone="resnet3d_10",
        dropout=0.0,
        map_channel=False,
        target_layers=("layer2",),
        width=4,
        attention=rows.BlockAttentionParams(
            channel=True, spatial=True, order="channel_first", reduction=4, kernel="7x7x7"
        ),
    ),
    input=dataclasses.replace(
        ROW.input, modality="rgb", stack_length=1, num_segments=1, clip_length=4
    ),
    train=dataclasses.replace(
        ROW.train, epochs=6, accumulate=2, optimizer="sgd", nesterov=True, lr=0.1, batch_size=2
    ),
)


def test_a_network_over_time_learns_and_repeats_itself(
    toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, history = fit(toy, OVER_TIME, model=residual3d, packs=toy.frames)
    assert history[-1].train_loss < 0.5 * history[0].train_loss
    assert history[-1].val_accuracy == 1.0
    assert as_bytes(fit(toy, OVER_TIME, model=residual3d, packs=toy.frames)[0]) == as_bytes(state)
    assert all(tensor.is_contiguous() for tensor in state.values())


class KilledError(Exception):
    pass


@pytest.mark.parametrize("kill_at", [1, 3])
@pytest.mark.parametrize("options", [{}, {"patience": 2}, {"optimizer": "sgd", "lr": 0.01}])
def test_resumed_equals_uninterrupted(toy: Any, kill_at: int, options: dict[str, Any]) -> None:
    row = changed(**options)
    whole = fit(toy, row)

    def log(metrics: Mapping[str, float], step: int) -> None:
        if step == kill_at + 1:
            raise KilledError

    with pytest.raises(KilledError):
        fit(toy, row, log=log)
    steps: list[int] = []
    state, history = fit(toy, row, log=lambda metrics, step: steps.append(step))
    assert steps[0] == kill_at + 1, "it went on, it did not start anew"
    assert history == whole[1]
    assert as_bytes(state) == as_bytes(whole[0])


def test_killed_after_the_last_epoch(toy: Any) -> None:
    """Trained, but the outputs were not written: nothing is trained again."""
    params = dataclasses.replace(config.load(ROOT / "params.yaml"), threads=1, seed=1)
    options: dict[str, Any] = {
        "model": two_stream,
        "row": changed(epochs=1),
        "row_name": "temporal",
        "params": params,
        "manifest": toy.manifest,
        "split": toy.split,
        "packs": toy.flow,
        "scratch_key": "train/key",
    }
    first = loop.fit(**options, log=lambda metrics, step: None)
    again = loop.fit(**options, log=lambda metrics, step: pytest.fail("trained again"))
    assert as_bytes(first[0]) == as_bytes(again[0]) and first[1] == again[1]


def test_broken_scratch_starts_anew(
    toy: Any, scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = changed(epochs=1)
    whole = fit(toy, row)
    (scratch / "train/key").mkdir(parents=True)
    (scratch / "train/key/last.ckpt").write_bytes(b"cut off")
    assert as_bytes(fit(toy, row)[0]) == as_bytes(whole[0])
    assert "starts anew" in capsys.readouterr().err


def without_batch_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch norm sees micro-batches, and dropout draws for them: without both, sums agree."""

    def build(
        model: ModuleType, row: RowParams, num_classes: int, pretrained: object = None
    ) -> nn.Module:
        features = nn.Sequential(nn.Conv2d(5, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        return nn.Sequential(features, nn.Flatten(), nn.Linear(8, num_classes))

    monkeypatch.setattr(networks, "build", build)


def test_micro_batches_keep_the_optimizer_s_batch(
    toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_batch_norm(monkeypatch)
    row = changed(optimizer="sgd", lr=0.1, epochs=2)
    whole = fit(toy, row)
    monkeypatch.setenv("FLOWSIGHT_MICRO_BATCH", "3")  # 10 clips: 3 + 1, 3 + 1, 2
    cut = fit(toy, row)
    for name, tensor in whole[0].items():
        torch.testing.assert_close(cut[0][name], tensor, rtol=1e-4, atol=1e-6)
    assert whole[1][-1].train_loss == pytest.approx(cut[1][-1].train_loss, rel=1e-4)


def test_accumulation_is_a_larger_batch(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    without_batch_norm(monkeypatch)
    row = changed(optimizer="sgd", lr=0.1, epochs=2, batch_size=6)
    whole = fit(toy, row)
    cut = fit(toy, changed(row, batch_size=2, accumulate=3))
    for name, tensor in whole[0].items():
        torch.testing.assert_close(cut[0][name], tensor, rtol=1e-4, atol=1e-6)


def test_early_stop_keeps_the_best_weights(toy: Any) -> None:
    row = changed(epochs=30, patience=2, lr=0.01, schedule="constant")
    state, history = fit(toy, row)
    losses = [epoch.val_loss for epoch in history]
    best = min(range(len(losses)), key=lambda i: losses[i] or 0.0)
    assert len(history) == best + 3 < 30
    shorter, _ = fit(toy, changed(row, epochs=best + 1, patience=None))
    assert as_bytes(state) == as_bytes(shorter), "the weights of the best epoch"


def test_without_validation_clips(toy: Any, tmp_path: Path) -> None:
    split = tmp_path / "1.csv"
    split.write_text(toy.split.read_text().replace(",val", ",train"))
    _, history = fit(toy, changed(epochs=2, patience=1), split=split)
    assert [epoch.val_loss for epoch in history] == [None, None]


def test_phase_2_goes_on_with_maps(toy: Any, tmp_path: Path) -> None:
    state, _ = fit(toy)
    checkpoint.save(state, tmp_path / "phase1" / "model.pt")
    row = changed(epochs=1, lr=1e-9)
    attended, history = fit(toy, row, init=tmp_path / "phase1", maps=toy.maps)
    for name in ("layer1.conv1.weight", "fc.weight"):
        torch.testing.assert_close(attended[name], state[name], atol=1e-6, rtol=0)
    _, plain = fit(toy, row, init=tmp_path / "phase1")
    assert history[0].train_loss != plain[0].train_loss, "maps are seen"


def test_mixed_precision(toy: Any) -> None:
    _, history = fit(toy, changed(precision="bf16-mixed", epochs=2))
    assert history[-1].train_loss < 2


def test_divergence_is_an_input_error(toy: Any) -> None:
    with pytest.raises(InputError, match=r"epoch \d of temporal; lower rows\.temporal\.train\.lr"):
        fit(toy, changed(optimizer="sgd", lr=1e30, schedule="constant"))


def test_faults(toy: Any, tmp_path: Path) -> None:
    split = tmp_path / "1.csv"
    split.write_text(toy.split.read_text().replace(",train", ",test"))
    with pytest.raises(InputError, match="found none"):
        fit(toy, split=split)
    with pytest.raises(InputError, match="phase1"):
        fit(toy, init=tmp_path / "phase1")
    unknown = dataclasses.replace(ROW.network, backbone="none")
    with pytest.raises(InputError, match="'none'"):
        fit(toy, dataclasses.replace(ROW, network=unknown))


@pytest.mark.parametrize("num_workers", ["0", "1"])
def test_broken_pack_is_named(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_workers: str
) -> None:
    monkeypatch.setenv("FLOWSIGHT_WORKERS", num_workers)
    for path in sorted(toy.flow.rglob("*.zip")):
        copy = tmp_path / "flow" / path.relative_to(toy.flow)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"^expected a whole pack at .*\.zip"):
        fit(toy, packs=tmp_path / "flow")


def test_out_of_memory_says_what_to_do(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("flowsight.classifiers.task.Classification.forward", explode)
    with pytest.raises(ResourceError, match="FLOWSIGHT_MICRO_BATCH=2"):
        fit(toy)


def test_leaves_no_trace(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    threads = torch.get_num_threads()
    fit(toy, changed(epochs=1))
    assert not list(Path.cwd().rglob("*")), "no lightning_logs, no checkpoints"
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


_SCRIPT = """
import dataclasses, json, sys, time
from pathlib import Path
from flowsight.classifiers.params import RowParams
from flowsight.nn import checkpoint
from flowsight.params import config, schema
from flowsight.systems.two_stream import network
from flowsight.training import loop, resume, schedule
options = json.loads(sys.argv[1])
params = dataclasses.replace(config.load(options["params"]), threads=1, seed=1)
state, history = loop.fit(
    model=network, row_name="temporal", params=params,
    row=schema.read(RowParams, options["row"], "row"),
    manifest=Path(options["manifest"]), split=Path(options["split"]), packs=Path(options["packs"]),
    scratch_key="train/key", log=lambda metrics, step: time.sleep(options["sleep_sec"]),
)
checkpoint.save(state, Path(options["out"]) / "model.pt")
schedule.write_history(history, Path(options["out"]) / "history.csv")
resume.discard("train/key")
"""


@pytest.mark.slow
def test_kill_9_and_resume(toy: Any, tmp_path: Path, scratch: Path) -> None:
    """A real process, killed in the middle of an epoch, ends in the bytes of one that was not."""

    def start(out: Path, sleep_sec: float) -> subprocess.Popen[bytes]:
        options = {
            "params": str(ROOT / "params.yaml"),
            "row": json.loads(json.dumps(dataclasses.asdict(ROW))),
            "manifest": str(toy.manifest),
            "split": str(toy.split),
            "packs": str(toy.flow),
            "out": str(out),
            "sleep_sec": sleep_sec,
        }
        return subprocess.Popen([sys.executable, "-c", _SCRIPT, json.dumps(options)])

    assert start(tmp_path / "whole", 0).wait(300) == 0
    killed = start(tmp_path / "resumed", 0.5)
    state = scratch / "train/key/last.ckpt"
    deadline = time.monotonic() + 300
    seen: list[int] = []
    while len(seen) < 2 and time.monotonic() < deadline:  # the second epoch's state is there
        if state.exists() and state.stat().st_mtime_ns not in seen:
            seen.append(state.stat().st_mtime_ns)
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "resumed").exists()
    assert start(tmp_path / "resumed", 0).wait(300) == 0
    for name in ("model.pt", "history.csv"):
        whole, resumed = (tmp_path / part / name for part in ("whole", "resumed"))
        assert whole.read_bytes() == resumed.read_bytes(), name
    assert not list(scratch.rglob("*")), "removed on success"


_JOINT_SCRIPT = """
import dataclasses, json, os, sys
from pathlib import Path
from torch import distributed, nn
from flowsight.classifiers import networks
from flowsight.classifiers.params import RowParams
from flowsight.nn import checkpoint
from flowsight.params import config, schema
from flowsight.systems.two_stream import network
from flowsight.training import loop, schedule
options = json.loads(sys.argv[1])
out = Path(options["out"])
class Witness(nn.Identity):
    def forward(self, x):
        if distributed.is_initialized():
            name = f"{distributed.get_backend()} {distributed.get_rank()}"
            (out / "seen" / f"{name} of {distributed.get_world_size()}").touch()
        return x
def build(model, row, num_classes, pretrained=None):
    features = nn.Sequential(nn.Conv2d(5, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(Witness(), features, nn.Flatten(), nn.Linear(8, num_classes))
networks.build = build
params = dataclasses.replace(config.load(options["params"]), threads=1, seed=1)
state, history = loop.fit(
    model=network, row_name="temporal", params=params,
    row=schema.read(RowParams, options["row"], "row"),
    manifest=Path(options["manifest"]), split=Path(options["split"]), packs=Path(options["packs"]),
    scratch_key=options["out"].replace("/", "_"), log=lambda metrics, step: None,
)
if os.environ.get("LOCAL_RANK", "0") == "0":  # one writer: the other's is the same
    checkpoint.save(state, out / "model.pt")
    schedule.write_history(history, out / "history.csv")
"""


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(toy: Any, tmp_path: Path) -> None:
    """gloo on CPUs, the trainer's own: each takes half of the joint batch.

    The network has no batch norm, whose means are over a process's half, and no dropout, which
    draws by process: what is left is arithmetic in another order.
    """
    script = tmp_path / "joint.py"
    script.write_text(_JOINT_SCRIPT)
    for devices in (1, 2):
        row = changed(optimizer="sgd", lr=0.1, epochs=3, devices=devices)
        (tmp_path / str(devices) / "seen").mkdir(parents=True)
        options = {
            "params": str(ROOT / "params.yaml"),
            "row": json.loads(json.dumps(dataclasses.asdict(row))),
            "manifest": str(toy.manifest),
            "split": str(toy.split),
            "packs": str(toy.flow),
            "out": str(tmp_path / str(devices)),
        }
        done = subprocess.run(
            [sys.executable, str(script), json.dumps(options)],
            capture_output=True,
            text=True,
            timeout=280,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )
        assert done.returncode == 0, done.stderr[-2000:]
    seen = [{path.name for path in (tmp_path / n / "seen").iterdir()} for n in "12"]
    assert seen == [set(), {"gloo 0 of 2", "gloo 1 of 2"}]
    one, two = (list(csv.DictReader((tmp_path / n / "history.csv").open())) for n in "12")
    assert len(one) == len(two) == 3
    for first, second in zip(one, two, strict=True):
        for name, value in first.items():
            if value:
                assert float(second[name]) == pytest.approx(float(value), rel=1e-4), name
    states = [checkpoint.load(tmp_path / n / "model.pt") for n in "12"]
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-4, atol=1e-6)
