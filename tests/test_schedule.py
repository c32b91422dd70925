"""Learning rates, endings, and what the history file says."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowsight.errors import InputError
from flowsight.params.training import TrainParams
from flowsight.training import schedule
from flowsight.training.schedule import Epoch


def params(**changes: object) -> TrainParams:
    values: dict[str, object] = {
        "epochs": 10,
        "samples_per_epoch": 1,
        "batch_size": 8,
        "accumulate": 1,
        "optimizer": "sgd",
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "schedule": "constant",
        "milestones": (),
        "gamma": 0.1,
        "patience": None,
        "precision": "32-true",
        "devices": 1,
    }
    return TrainParams(**{**values, **changes})  # type: ignore[arg-type]


def epochs(*losses: float | None) -> list[Epoch]:
    return [
        Epoch(
            epoch=i + 1,
            lr=0.1,
            train_loss=1.0,
            train_accuracy=0.5,
            val_loss=loss,
            val_accuracy=None if loss is None else 0.25,
        )
        for i, loss in enumerate(losses)
    ]


def test_step_schedule_of_the_thesis() -> None:
    step = params(schedule="step", lr=1e-3, epochs=300, milestones=(30, 250))
    rates = [schedule.learning_rate(step, epoch) for epoch in (0, 29, 30, 249, 250, 299)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


def test_poly_schedule_by_hand() -> None:
    poly = params(schedule="poly", lr=0.2, epochs=4, gamma=0.5)
    rates = [schedule.learning_rate(poly, epoch) for epoch in range(4)]
    assert rates == pytest.approx([0.2, 0.2 * 0.75**0.5, 0.2 * 0.5**0.5, 0.1])


@pytest.mark.parametrize("kind", ["constant", "step", "cosine"])
def test_schedules_are_torch_s(kind: str) -> None:
    torch = pytest.importorskip("torch")
    ours = params(schedule=kind, milestones=(3, 7))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    lr_scheduler = torch.optim.lr_scheduler
    theirs = {
        "constant": lr_scheduler.ConstantLR(optimizer, factor=1.0),
        "step": lr_scheduler.MultiStepLR(optimizer, [3, 7], gamma=0.1),
        "cosine": lr_scheduler.CosineAnnealingLR(optimizer, T_max=10),
    }[kind]
    for epoch in range(10):
        rate = optimizer.param_groups[0]["lr"]
        assert schedule.learning_rate(ours, epoch) == pytest.approx(rate)
        optimizer.step()
        theirs.step()


def test_ends_after_all_epochs_or_by_patience() -> None:
    patient = params(patience=2)
    assert not schedule.is_over([], patient)
    assert not schedule.is_over(epochs(3, 2, 2.5), patient)
    assert schedule.is_over(epochs(3, 2, 2.5, 2.1), patient)
    assert not schedule.is_over(epochs(3, 2, 2.5, 1.9), patient)
    assert not schedule.is_over(epochs(3, 4, 5, 6), params()), "a fixed schedule"
    assert not schedule.is_over(epochs(None, None, None, None), patient), "no validation clips"
    assert schedule.is_over(epochs(*[1.0] * 10), params())


def test_best_is_strictly_better() -> None:
    assert schedule.is_best(epochs(1.0))
    assert schedule.is_best(epochs(2.0, 1.0))
    assert not schedule.is_best(epochs(1.0, 1.0))
    assert not schedule.is_best(epochs(None))


def test_diverged_training_says_what_to_do() -> None:
    with pytest.raises(InputError, match=r"epoch 1 of spatial; lower rows\.spatial\.train\.lr"):
        schedule.check_finite(epochs(float("nan"))[0], "spatial")
    schedule.check_finite(epochs(None)[0], "spatial")


def test_history_file(tmp_path: Path) -> None:
    schedule.write_history(epochs(1 / 3, None), tmp_path / "deep" / "h.csv")
    assert (tmp_path / "deep" / "h.csv").read_bytes().decode() == (
        "epoch,lr,train_loss,train_accuracy,val_loss,val_accuracy\n"
        "1,0.1,1.000000,0.500000,0.333333,0.250000\n"
        "2,0.1,1.000000,0.500000,,\n"
    )


def test_micro_batch_is_the_machine_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOWSIGHT_MICRO_BATCH", raising=False)
    assert schedule.micro_batch(params()) == 8 and schedule.is_bit_reproducible(params())
    assert schedule.micro_batch(params(devices=3)) == 3
    monkeypatch.setenv("FLOWSIGHT_MICRO_BATCH", "2")
    assert schedule.micro_batch(params()) == 2 and not schedule.is_bit_reproducible(params())
    monkeypatch.setenv("FLOWSIGHT_MICRO_BATCH", "100")
    assert schedule.micro_batch(params()) == 8 and schedule.is_bit_reproducible(params())
    for wrong in ("0", "many", "-1"):
        monkeypatch.setenv("FLOWSIGHT_MICRO_BATCH", wrong)
        with pytest.raises(InputError, match="FLOWSIGHT_MICRO_BATCH"):
            schedule.micro_batch(params())
