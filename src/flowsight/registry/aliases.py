"""Aliases moved in an order that never leaves a model without a champion, and mended after a kill.

The order is: note the plan in the trail; previous; champion; challenger; note that it is done. Each
alias moves at once. A process killed in between leaves an open entry; whoever changes the model
next finishes it if the champion had moved already, and undoes it if not.
"""

from __future__ import annotations

import sys

from flowsight.errors import InputError, ResourceError
from flowsight.registry import trail
from flowsight.registry.store import CHALLENGER, CHAMPION, PREVIOUS, Registry
from flowsight.registry.trail import Entry, Plan


def change(registry: Registry, model: str, number: int, plan: Plan) -> Entry:
    """Carry out a plan that was made when `number` was the next entry.

    Raises:
        ResourceError: somebody else changed the model since, or it took too long.
        InputError: the aliases were moved by hand since.
    """
    entry = trail.begin(registry, model, number, plan)
    aliases = registry.aliases(model)
    if aliases.get(CHAMPION) != plan.champion[0] or aliases.get(PREVIOUS) != plan.previous[0]:
        note = f"the aliases were moved without the trail: {_describe(aliases)}"
        trail.close(registry, entry, trail.UNDONE, note)
        raise InputError(f"{plan.action} of {model} not done: {note}; look and try again")
    _move(registry, entry, PREVIOUS, plan.previous[1])
    _move(registry, entry, CHAMPION, plan.champion[1])
    _drop_challenger(registry, entry)
    trail.close(registry, entry, trail.DONE)
    return entry


def _move(registry: Registry, entry: Entry, alias: str, version: str | None) -> None:
    if entry.remaining_sec <= trail.LEASE_SEC / 4:
        raise ResourceError(
            f"{entry.plan.action} {entry.number} of {entry.model} took too long and was given up; "
            "the next change of the model mends what was begun"
        )
    registry.point(entry.model, alias, version)


def _drop_challenger(registry: Registry, entry: Entry) -> None:
    """The challenger that became champion is none any more; another one stays."""
    if registry.aliases(entry.model).get(CHALLENGER) == entry.plan.champion[1]:
        registry.point(entry.model, CHALLENGER, None)


def settle(registry: Registry, model: str) -> list[Entry]:
    """Finish or undo what was begun and not ended; itself an entry of the trail.

    Returns:
        The trail afterwards.

    Raises:
        ResourceError: somebody is at it right now.
    """
    seen = trail.entries(registry, model)
    broken = [entry for entry in seen if entry.state == trail.OPEN]
    busy = next((entry for entry in broken if trail.is_under_way(entry)), None)
    if busy is not None:
        raise ResourceError(
            f"{busy.who} changes {model} right now ({busy.plan.action}, entry {busy.number}, since "
            f"{busy.when}); nothing was changed here: try again in a minute"
        )
    if not broken:
        return seen
    why = f"entries {', '.join(str(entry.number) for entry in broken)} were not ended"
    plan = Plan(action="recover", why=why)
    own = trail.begin(registry, model, trail.next_number(seen), plan)
    for entry in broken:
        _mend(registry, entry, own)
    trail.close(registry, own, trail.DONE)
    return trail.entries(registry, model)


def _mend(registry: Registry, entry: Entry, own: Entry) -> None:
    plan, champion = entry.plan, registry.aliases(entry.model).get(CHAMPION)
    if plan.champion[1] is None:  # a recovery that was killed itself: nothing of its own
        state = trail.UNDONE
    elif champion == plan.champion[1]:
        _move_as(registry, own, entry, plan.previous[1])
        _drop_challenger(registry, entry)
        state = trail.DONE
    else:
        if champion == plan.champion[0]:
            _move_as(registry, own, entry, plan.previous[0])
        state = trail.UNDONE
    verb = "finished" if state == trail.DONE else "undone"
    trail.close(registry, entry, state, f"{verb} by {own.who} (entry {own.number})")
    print(
        f"{entry.plan.action} {entry.number} of {entry.model} was broken off; {verb}",
        file=sys.stderr,
    )


def _move_as(registry: Registry, own: Entry, entry: Entry, previous: str | None) -> None:
    """The previous alias, under the lease of the recovery."""
    if registry.aliases(entry.model).get(PREVIOUS) != previous:
        _move(registry, own, PREVIOUS, previous)


def rollback(registry: Registry, model: str, reason: str = "") -> Entry:
    """Put the previous champion back; previous becomes the one before it.

    Raises:
        NotThereError: no such model, no champion, no previous version, or its run was deleted.
        ResourceError: somebody changes the model right now.
    """
    registry.check_model(model)
    history = settle(registry, model)
    champion = registry.version(model, CHAMPION)
    back = registry.version(model, PREVIOUS)
    registry.run(back)
    before = _before(registry, history, model, str(back.version))
    plan = Plan(
        action="rollback",
        champion=(str(champion.version), str(back.version)),
        previous=(str(back.version), before),
        why=reason,
    )
    return change(registry, model, trail.next_number(history), plan)


def _before(registry: Registry, history: list[Entry], model: str, version: str) -> str | None:
    """The champion before a version, of those that still exist."""
    champions = trail.line(history)
    if version not in champions:
        return None
    there = {str(one.version) for one in registry.versions(model)}
    index = len(champions) - 1 - champions[::-1].index(version)
    earlier = [one for one in champions[:index] if one in there and one != version]
    return earlier[-1] if earlier else None


def _describe(aliases: dict[str, str]) -> str:
    return ", ".join(f"{alias} is {aliases.get(alias, 'none')}" for alias in (CHAMPION, PREVIOUS))
