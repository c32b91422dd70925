"""Choosing whole groups of clips for one side of a split."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence


def hashed_order(names: Sequence[str], key: str) -> list[str]:
    """Names in an order that only `key` and each name decide: a new name moves no other.

    Args:
        names: distinct names.
        key: seed and split, as text.
    """
    return sorted(names, key=lambda name: (hashlib.sha256(f"{key}/{name}".encode()).digest(), name))


def choose_groups(
    labels: Sequence[str], groups: Sequence[str], *, share: float, key: str
) -> set[str]:
    """Pick groups that together hold about `share` of every class's clips.

    Groups are taken in hashed order while that brings the classes nearer to their share. Groups
    that several classes have in common (actors) are thereby taken for all of them at once. A class
    keeps at least one group, so one with a single group gives none; a class with more gives at
    least one where that costs no other class anything.

    Args:
        labels: class of each clip.
        groups: group of each clip.
        share: in [0, 1).
        key: decides the order.

    Returns:
        The chosen groups.
    """
    members: dict[str, Counter[str]] = {}
    for label, group in zip(labels, groups, strict=True):
        members.setdefault(group, Counter())[label] += 1
    missing = {label: share * count for label, count in Counter(labels).items()}
    left = Counter(label for counts in members.values() for label in counts)
    order = hashed_order(list(members), key) if share > 0 else []
    chosen: set[str] = set()
    served: set[str] = set()

    def take_if(wanted: bool, group: str) -> None:
        counts = members[group]
        if group in chosen or not wanted or any(left[label] == 1 for label in counts):
            return
        chosen.add(group)
        served.update(counts)
        left.subtract(counts.keys())
        for label, count in counts.items():
            missing[label] -= count

    for group in order:
        counts = members[group]
        gain = sum(abs(missing[k]) - abs(missing[k] - count) for k, count in counts.items())
        take_if(gain > 0, group)
    # classes whose groups are all larger than twice their share: their smallest group
    for group in sorted(order, key=lambda name: members[name].total()):
        take_if(served.isdisjoint(members[group]), group)
    return chosen
