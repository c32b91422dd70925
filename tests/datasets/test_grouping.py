"""Choosing whole groups."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from flowsight.datasets.grouping import choose_groups, hashed_order

NAMES = st.sampled_from([f"g{i}" for i in range(6)])
CLIPS = st.lists(st.tuples(st.sampled_from("abc"), NAMES), min_size=1, max_size=60)


def choose(clips: list[tuple[str, str]], share: float, key: str = "1/1") -> set[str]:
    return choose_groups([c[0] for c in clips], [c[1] for c in clips], share=share, key=key)


@settings(max_examples=200, deadline=None)
@given(CLIPS, st.floats(0, 0.9), st.booleans())
def test_every_class_keeps_a_group(
    clips: list[tuple[str, str]], share: float, private: bool
) -> None:
    if private:
        clips = [(label, f"{label}/{group}") for label, group in clips]
    chosen = choose(clips, share)
    assert chosen <= {group for _, group in clips}
    for label in {label for label, _ in clips}:
        groups = {group for name, group in clips if name == label}
        assert groups - chosen
        if private and share > 0 and len(groups) > 1:
            assert groups & chosen


def test_shared_groups_are_taken_once_for_all_classes() -> None:
    clips = [(label, f"actor{i}") for label in "abcdefgh" for i in range(8)]
    assert len(choose(clips, 0.2)) == 2
    assert len(choose(clips[:-1], 0.2)) == 2  # a quarantined clip changes nothing
    assert choose(clips, 0.0) == set()


def test_private_groups_come_near_the_share() -> None:
    clips = [(label, f"{label}{i}") for label in "ab" for i in range(18) for _ in range(5)]
    chosen = choose(clips, 0.2)
    counts = Counter(label for label, group in clips if group in chosen)
    assert counts == {"a": 20, "b": 20}  # 3.6 groups of 5 clips: 4


def test_single_and_large_groups() -> None:
    assert choose([("a", "only")] * 9, 0.5) == set()
    assert choose([("a", "big")] * 6 + [("a", "small")] * 2, 0.1) == {"small"}


def test_a_new_name_moves_no_other() -> None:
    names = [f"n{i}" for i in range(50)]
    with_new = hashed_order([*names, "new"], "key")
    assert [name for name in with_new if name != "new"] == hashed_order(names[::-1], "key")
    assert hashed_order(names, "key") != hashed_order(names, "other")
