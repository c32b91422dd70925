"""`flowsight history`: the trail of a model, for people and for programs."""

from __future__ import annotations

from typing import Any

from flowsight.registry import trail
from flowsight.registry.store import CHALLENGER, CHAMPION, PREVIOUS, Registry


def history(registry: Registry, model: str) -> dict[str, Any]:
    """Every entry, oldest first, and where the aliases stand.

    Raises:
        NotThereError: no such model.
        ResourceError: the registry cannot be reached.
    """
    registry.check_model(model)
    found = trail.entries(registry, model)
    aliases = registry.aliases(model)
    line = trail.line(found)
    expected = line[-1] if line else None
    moved = found and not any(e.state == trail.OPEN for e in found)
    by_hand = bool(moved and aliases.get(CHAMPION) != expected)
    return {
        "model": model,
        "aliases": {a: aliases.get(a) for a in (CHAMPION, CHALLENGER, PREVIOUS)},
        "moved_by_hand": by_hand,
        "entries": [_as_dict(entry) for entry in found],
    }


def _as_dict(entry: trail.Entry) -> dict[str, Any]:
    return {
        "number": entry.number,
        "when": entry.when,
        "who": entry.who,
        "action": entry.plan.action,
        "from": entry.plan.champion[0],
        "to": entry.plan.champion[1],
        "state": entry.state,
        "why": entry.plan.why,
        "note": entry.note,
        "numbers": dict(entry.plan.numbers),
    }


def as_text(model: str, found: dict[str, Any]) -> str:
    """The history as lines."""
    lines = []
    for one in found["entries"]:
        step = f"{one['from'] or 'none'} -> {one['to']}" if one["to"] else ""
        state = "" if one["state"] == trail.DONE else f" [{one['state']}]"
        who = f"{one['number']:>3}  {one['when']}  {one['who']}"
        lines.append(f"{who}  {one['action']} {step}{state}".rstrip())
        lines += [f"     {text}" for text in (one["why"], one["note"]) if text]
        if one["numbers"]:
            numbers = ", ".join(f"{name} {value:g}" for name, value in one["numbers"].items())
            lines.append(f"     {numbers}")
    aliases = (f"{a}: {v or 'none'}" for a, v in found["aliases"].items())
    lines.append(f"{model} now: {', '.join(aliases)}")
    if found["moved_by_hand"]:
        lines.append("the champion was moved by hand: it is not the one the history ends with")
    return "\n".join(lines)
