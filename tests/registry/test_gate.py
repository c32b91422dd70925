"""The gate's verdict on made-up evidence: pure functions, no server."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import pairwise

import pytest

from flowsight.config import PromotionParams
from flowsight.registry import gate
from flowsight.registry.evidence import Evidence
from flowsight.registry.gate import Verdict

HERE = "a" * 40
LIMITS = PromotionParams(bootstrap_samples=2000)


def judge(challenger: Evidence, champion: Evidence | None = None, **changes: object) -> Verdict:
    options = {"latency_sec": 0.1, "repository": HERE, "seed": 1, **changes}
    limits = options.pop("limits", LIMITS)
    scores = champion.scores if champion else None
    return gate.judge(challenger, champion, limits, champion_scores=scores, **options)


def refused(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.checks if not check.passed]


def test_the_first_model_needs_only_absolute_thresholds(evidence_of: Callable) -> None:
    verdict = judge(evidence_of(right=20))
    assert verdict.accepted and verdict.numbers["accuracy"] == 0.5
    assert not any("loss" in check.name for check in verdict.checks)
    assert refused(judge(evidence_of(right=19))) == ["accuracy"]


def test_as_good_and_better_pass_and_worse_does_not(evidence_of: Callable) -> None:
    champion = evidence_of(right=30)
    same = judge(evidence_of(right=30), champion)
    assert same.accepted and same.numbers["probability"] == 1 and same.numbers["gain"] == 0
    better = judge(evidence_of(right=36), champion)
    assert better.accepted and better.numbers["gain"] == pytest.approx(0.15)
    worse = judge(evidence_of(right=24), champion)
    assert refused(worse) == ["P(loss <= 0.02)"]
    assert worse.numbers["probability"] < 0.05
    assert "on the same 40 clips" in worse.reasons[0]


def test_the_probability_is_of_the_paired_difference(evidence_of: Callable) -> None:
    # one clip of 40 lost, none won: 0.025 is more than 0.02, and 1 draw in e has not that clip
    one_less = judge(evidence_of(right=29), evidence_of(right=30))
    assert one_less.numbers["probability"] == pytest.approx((1 - 1 / 40) ** 40, abs=0.04)
    allowed = dataclasses.replace(LIMITS, max_loss=0.1)
    assert judge(evidence_of(right=29), evidence_of(right=30), limits=allowed).accepted


def test_clips_learnt_from_are_found_by_name_and_by_content(evidence_of: Callable) -> None:
    champion = evidence_of(learnt=["Up/t00", "Up/x"])
    verdict = judge(evidence_of(), champion)
    assert refused(verdict) == ["test clips learnt from"]
    assert verdict.reasons == ["test clips learnt from: the champion was trained on Up/t00"]
    own = evidence_of(learnt=["Up/renamed"])
    own.clips.loc[own.clips["clip_id"] == "Up/renamed", "sha256"] = "hash of Down/t01"
    assert "the challenger was trained on Down/t01" in judge(own).reasons[0]


def test_validation_clips_count_as_learnt(evidence_of: Callable) -> None:
    champion = evidence_of(learnt=["Up/t00"])
    champion.clips.loc[champion.clips["subset"] == "train", "subset"] = "val"
    assert refused(judge(evidence_of(), champion)) == ["test clips learnt from"]


@pytest.mark.parametrize(
    ("tags", "name", "says"),
    [
        ({"data_gate": "only manifest"}, "data gate", "expected passed, got only manifest"),
        ({"repository": "b" * 40}, "repository", "trained in the repository bbbbbbbbbb"),
        ({"top1": "nan"}, "numbers", "top1 is nan"),
        ({"top5": ""}, "numbers", "top5 is "),
        ({"size_bytes": "900000000"}, "size", "900.0 MB is too much"),
        ({"size_bytes": "?"}, "size", ""),
    ],
)
def test_what_is_refused(evidence_of: Callable, tags: dict[str, str], name: str, says: str) -> None:
    verdict = judge(evidence_of(**tags))
    assert refused(verdict) == [name] and says in verdict.reasons[0]


def test_missing_and_broken_numbers(evidence_of: Callable) -> None:
    bad = evidence_of()
    del bad.tags["mean_class"]
    assert "mean_class is missing" in judge(bad).reasons[0]
    bad = evidence_of()
    bad.scores.loc[3, "prob_Up"] = float("nan")
    assert "NaN or infinity for Down/t03" in judge(bad).reasons[0]
    bad = evidence_of()
    bad.scores.drop(index=0, inplace=True)
    assert "no prediction for Up/t00" in judge(bad).reasons[0]
    assert not judge(evidence_of(tested=[])).accepted


def test_a_champion_without_predictions_is_not_taken_for_beaten(evidence_of: Callable) -> None:
    champion = evidence_of()
    champion.scores.drop(index=[0, 1], inplace=True)
    verdict = judge(evidence_of(right=40), champion)
    assert "the champion has no prediction for Down/t01, Up/t00" in verdict.reasons[0]


def test_latency(evidence_of: Callable) -> None:
    assert "31.000 s is more than 30.0 s" in judge(evidence_of(), latency_sec=31.0).reasons[0]
    assert refused(judge(evidence_of(), latency_sec=None)) == ["seconds, short video"]
    any_time = dataclasses.replace(LIMITS, max_latency_sec=None)
    assert judge(evidence_of(), latency_sec=None, limits=any_time).accepted


def test_the_table_is_for_people(evidence_of: Callable) -> None:
    lines = gate.table(judge(evidence_of(right=10), evidence_of(right=30)).checks)
    assert lines[0].split() == ["check", "wanted", "champion", "challenger"]
    starts = [line.index("REFUSED") for line in lines if "REFUSED" in line]
    assert len(starts) == 2 and all(a == b for a, b in pairwise(starts))
    assert max(len(line) for line in lines) < 120
