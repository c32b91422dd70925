"""Champion, challenger, previous: moved one after the other, remembered, and mended."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flowsight.errors import GateError, InputError, ResourceError
from flowsight.registry import aliases, candidate, history, model_answers, trail
from flowsight.registry.store import NotThereError
from flowsight.registry.trail import Plan

pytestmark = pytest.mark.slow


def change(world, champion: tuple, previous: tuple, **more: object) -> None:
    """A promotion whose gate is not asked."""
    plan = Plan(action="promote", champion=champion, previous=previous, why="test")
    number = trail.next_number(trail.entries(world.registry, world.model))
    aliases.change(world.registry, world.model, number, plan, **more)


def versions(world, count: int) -> None:
    """Versions without a model behind them: nobody loads them here."""
    client = world.registry.client
    client.create_registered_model(world.model)
    run = client.create_run("0")
    for _ in range(count):
        client.create_model_version(world.model, f"runs:/{run.info.run_id}/x", run.info.run_id)


def steps(world) -> list[tuple]:
    found = history.history(world.registry, world.model)
    return [(e["action"], e["from"], e["to"], e["state"]) for e in found["entries"]]


def test_register_promote_history_rollback(
    world, promote: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    first = world.publish(right=36)
    assert (first.version, first.is_new) == ("1", True)
    assert world.aliases() == {"challenger": "1"}
    promote(world.model)
    assert world.aliases() == {"champion": "1"}
    world.publish(right=38)
    promote(world.model, dry_run=True)
    assert world.aliases() == {"champion": "1", "challenger": "2"}
    promote(world.model)
    assert world.aliases() == {"champion": "2", "previous": "1"}
    said = capsys.readouterr().out
    assert "P(loss <= 0.02)" in said and "accepted: version 2 against champion 1" in said
    world.publish(right=20)
    with pytest.raises(GateError, match=r"3 refused: P\(loss"):
        promote(world.model)
    assert world.aliases() == {"champion": "2", "previous": "1", "challenger": "3"}
    promote(world.model, force="the other one is broken")
    assert world.aliases() == {"champion": "3", "previous": "2"}
    aliases.rollback(world.registry, world.model, "customers complain")
    assert world.aliases() == {"champion": "2", "previous": "1"}
    aliases.rollback(world.registry, world.model)
    assert world.aliases() == {"champion": "1"}
    with pytest.raises(NotThereError, match="no 'previous'"):
        aliases.rollback(world.registry, world.model)
    assert steps(world) == [
        ("promote", None, "1", "done"),
        ("promote", "1", "2", "done"),
        ("promote", "2", "3", "done"),
        ("rollback", "3", "2", "done"),
        ("rollback", "2", "1", "done"),
    ]
    found = history.history(world.registry, world.model)
    text = history.as_text(world.model, found)
    assert "customers complain" in text and trail.who() in text and "gain 0.05" in text
    assert "FORCED: the other one is broken (refused: P(loss" in text
    assert not found["moved_by_hand"]
    world.registry.point(world.model, "champion", "3")
    assert history.history(world.registry, world.model)["moved_by_hand"]


def test_the_same_checkpoint_is_registered_once(world) -> None:
    made = world.candidate(checkpoint="same")
    first = candidate.publish(world.registry, made, world.served)
    again = candidate.publish(world.registry, made, world.served)
    assert (again.version, again.run_id, again.is_new) == ("1", first.run_id, False)
    world.registry.point(world.model, "challenger", None)
    world.registry.point(world.model, "champion", "1")
    candidate.publish(world.registry, made, world.served)
    assert world.aliases() == {"champion": "1"}  # a champion challenges nobody
    assert len(world.registry.versions(world.model)) == 1


def test_two_who_register_at_once_make_one_version(world) -> None:
    """Both have found none and go on; then one of a version whose run is gone."""
    made = world.candidate(checkpoint="same")
    first = candidate._make(world.registry, made, world.served())
    second = candidate._make(world.registry, made, world.served())
    assert (second.version, second.is_new) == (first.version, False)
    assert [str(one.version) for one in world.registry.versions(world.model)] == ["1"]
    world.registry.client.delete_run(first.run_id)
    third = candidate.publish(world.registry, made, world.served)
    assert third.is_new and third.version != first.version


def test_the_model_is_loaded_and_timed_and_scores_new_clips(
    world, promote: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After new clips came: the champion has never seen two of the test clips."""
    monkeypatch.undo()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", world.registry.uri)
    tested = [*(f"Up/t{i}" for i in range(6)), "Up/new", "Down/new"]
    world.publish(right=6, tested=tested[:6], answers=json.dumps({"videos/Down/new.avi": "Down"}))
    from flowsight.registry import evidence

    champion = evidence.load(world.registry, world.registry.version(world.model, "1"))
    other = world.candidate(right=8, tested=tested)
    clips = other.items[other.items["item_id"].str.endswith("new")]
    challenger = dataclasses.replace(champion, version="2", tags=other.tags, items=other.items)
    with pytest.raises(InputError, match=r"no predictions for 2 of the test clips, .*found no"):
        model_answers.score(world.registry, champion, challenger, clips, tmp_path)
    for path in clips["path"]:
        file = tmp_path / "data/raw/toy" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"video")
    with pytest.raises(InputError, match="is not the file that was listed"):
        model_answers.score(world.registry, champion, challenger, clips, tmp_path)
    from flowsight.files import sha256

    clips = clips.assign(sha256=sha256(tmp_path / "data/raw/toy" / clips["path"].iloc[0]))
    labels = model_answers.score(world.registry, champion, challenger, clips, tmp_path)
    assert labels == ["Up", "Down"]
    assert 0 < model_answers.latency(world.registry, champion, 3) < 30


RACE = """
import sys, time
from pathlib import Path
from flowsight.errors import FlowsightError
from flowsight.registry import moving, store, trail
from flowsight.registry.trail import Plan
model, challenger, flag = sys.argv[1:]
registry = store.connect()
number = trail.next_number(trail.entries(registry, model))
print("ready", flush=True)
while not Path(flag).exists():
    time.sleep(0.01)
plan = Plan(action="promote", champion=("1", challenger), previous=(None, "1"))
try:
    moving.change(registry, model, number, plan)
    print("won")
except FlowsightError as error:
    print(f"lost {error.exit_code}: {error}")
"""


def test_of_two_at_once_one_wins_and_the_other_says_so(world, tmp_path: Path) -> None:
    versions(world, 3)
    world.registry.point(world.model, "champion", "1")
    flag = tmp_path / "go"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, world.model, number, str(flag)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in ("2", "3")
    ]
    for one in both:
        assert one.stdout is not None and one.stdout.readline() == "ready\n"
    flag.touch()
    said = [one.communicate(timeout=120)[0].strip() for one in both]
    assert sorted(text[:4] for text in said) == ["lost", "won"]
    (loser,) = [text for text in said if text.startswith("lost")]
    assert loser.startswith("lost 75:") and f"was faster with change 1 of {world.model}" in loser
    winner = "2" if said[0] == "won" else "3"
    assert world.aliases() == {"champion": winner, "previous": "1"}
    assert steps(world) == [("promote", "1", winner, "done")]


KILLED = """
import os, signal, sys
from flowsight.registry import moving, store
from flowsight.registry.trail import Plan
model, after = sys.argv[1], int(sys.argv[2])
registry = store.connect()
move, moved = registry.point, []
def point(*arguments):
    if len(moved) == after:
        os.kill(os.getpid(), signal.SIGKILL)
    move(*arguments)
    moved.append(arguments)
registry.point = point
moving.change(registry, model, 1, Plan(action="promote", champion=("2", "3"), previous=("1", "2")))
"""


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_promotion_killed_between_moves_is_mended_by_the_next(world, after: int) -> None:
    versions(world, 3)
    before = {"champion": "2", "previous": "1", "challenger": "3"}
    for alias, number in before.items():
        world.registry.point(world.model, alias, number)
    done = subprocess.run([sys.executable, "-c", KILLED, world.model, str(after)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert world.aliases()["champion"] == ("3" if after == 2 else "2")  # never without
    assert steps(world) == [("promote", "2", "3", "open")]
    aliases.settle(world.registry, world.model)
    finished = {"champion": "3", "previous": "2"}
    assert world.aliases() == (finished if after == 2 else before)
    state = "done" if after == 2 else "undone"
    assert steps(world) == [("promote", "2", "3", state), ("recover", None, None, "done")]
    assert trail.line(trail.entries(world.registry, world.model)) == ["3"] * (after == 2)


def test_one_that_is_under_way_is_left_alone(world, monkeypatch: pytest.MonkeyPatch) -> None:
    versions(world, 2)
    world.registry.point(world.model, "champion", "1")
    plan = Plan(action="promote", champion=("1", "2"), previous=(None, "1"))
    entry = trail.begin(world.registry, world.model, 1, plan)
    with pytest.raises(ResourceError, match=r"changes .* right now"):
        aliases.settle(world.registry, world.model)
    assert trail.is_under_way(entry)
    elsewhere = dataclasses.replace(entry, holder="other|1|0")
    assert trail.is_under_way(elsewhere)  # nobody can look there
    assert not trail.is_under_way(dataclasses.replace(elsewhere, since=time.time() - 61))
    gone = dataclasses.replace(entry, holder=entry.holder.rpartition("|")[0] + "|1.0")
    assert not trail.is_under_way(gone)  # the number is another process's by now
    monkeypatch.setattr(trail, "LEASE_SEC", 0.0)
    assert aliases.settle(world.registry, world.model)[0].state == "undone"
    assert world.aliases() == {"champion": "1"}


def test_aliases_moved_by_hand_are_not_overwritten(world) -> None:
    versions(world, 3)
    world.registry.point(world.model, "champion", "3")
    with pytest.raises(InputError, match="moved without the trail: champion is 3"):
        change(world, ("1", "2"), (None, "1"))
    assert world.aliases() == {"champion": "3"}
    assert steps(world) == [("promote", "1", "2", "undone")]


def test_a_rollback_skips_versions_that_are_gone(world) -> None:
    versions(world, 4)
    change(world, (None, "1"), (None, None))
    change(world, ("1", "2"), (None, "1"))
    change(world, ("2", "3"), ("1", "2"))
    change(world, ("3", "4"), ("2", "3"))
    world.registry.client.delete_model_version(world.model, "2")
    aliases.rollback(world.registry, world.model)
    assert world.aliases() == {"champion": "3", "previous": "1"}


def test_a_trail_cannot_be_cut(world) -> None:
    versions(world, 2)
    change(world, (None, "1"), (None, None))
    (entry,) = trail.entries(world.registry, world.model)
    world.registry.client.delete_experiment(entry.experiment_id)
    assert len(trail.entries(world.registry, world.model)) == 1
    change(world, ("1", "2"), (None, "1"))
    assert [one.number for one in trail.entries(world.registry, world.model)] == [1, 2]
