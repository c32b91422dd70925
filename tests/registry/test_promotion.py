"""Champion, challenger, previous: moved one after the other, remembered, and mended."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flowsight.registry import moving, remembering, trail
from flowsight.registry.store import NotThereError


@pytest.mark.slow
def test_register_promote_history_rollback(
    world, promote: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    first = world.publish(right=36)
    assert (first.version, first.is_new) == ("1", True)
    assert world.aliases() == {"challenger": "1"}
    promote(world.model)
    assert world.aliases() == {"champion": "1"}
    world.publish(right=38)
    promote(world.model)
    assert world.aliases() == {"champion": "2", "previous": "1"}
    said = capsys.readouterr().out
    assert "P(loss <= 0.02)" in said and "accepted: version 2 against champion 1" in said
    world.publish(right=40)
    promote(world.model)
    assert world.aliases() == {"champion": "3", "previous": "2"}
    moving.rollback(world.registry, world.model, "customers complain")
    assert world.aliases() == {"champion": "2", "previous": "1"}
    moving.rollback(world.registry, world.model)
    assert world.aliases() == {"champion": "1"}
    with pytest.raises(NotThereError, match="no 'previous'"):
        moving.rollback(world.registry, world.model)
    found = remembering.history(world.registry, world.model)
    steps = [(e["action"], e["from"], e["to"], e["state"]) for e in found["entries"]]
    assert steps == [
        ("promote", None, "1", "done"),
        ("promote", "1", "2", "done"),
        ("promote", "2", "3", "done"),
        ("rollback", "3", "2", "done"),
        ("rollback", "2", "1", "done"),
    ]
    text = remembering.as_text(world.model, found)
    assert "customers complain" in text and trail.who() in text and "gain 0.05" in text
    assert not found["moved_by_hand"]
