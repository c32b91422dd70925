"""The gate's verdict on made-up evidence: pure functions, no server."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from flowsight.params.promotion import PromotionParams
from flowsight.registry import gate
from flowsight.registry.evidence import Evidence
from flowsight.registry.gate import Verdict
from flowsight.systems.background import judge as scenes

HERE = "a" * 40
LIMITS = PromotionParams(bootstrap_samples=2000)
OF_FRAMES = dataclasses.replace(LIMITS, block_items=10)  # as params.yaml has it


def judge(challenger: Evidence, champion: Evidence | None = None, **changes: object) -> Verdict:
    options = {"latency_sec": 0.1, "repository": HERE, "seed": 1, **changes}
    of_frames = challenger.tags.get("system") == "background"
    limits = options.pop("limits", OF_FRAMES if of_frames else LIMITS)
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
    own.items.loc[own.items["item_id"] == "Up/renamed", "sha256"] = "hash of Down/t01"
    assert "the challenger was trained on Down/t01" in judge(own).reasons[0]


def test_validation_clips_count_as_learnt(evidence_of: Callable) -> None:
    champion = evidence_of(learnt=["Up/t00"])
    champion.items.loc[champion.items["subset"] == "train", "subset"] = "val"
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


GOOD = {"repository": HERE, "system": "two_stream", "data_gate": "passed", "size_bytes": "1000"}


def of_images(scores: list[float], *, learnt: str = "x") -> Evidence:
    """A version over images that scored so."""
    names = [f"i{k}" for k in range(len(scores))]
    items = pd.DataFrame({"item_id": [*names, learnt], "subset": ["test"] * len(names) + ["train"]})
    items = items.assign(path="p", sha256="hash of " + items["item_id"], truth_sha256="t")
    numbers = dict.fromkeys(("f_beta", "max_f", "mae", "s_measure"), "0.5")
    return Evidence(
        model="toy",
        version="1",
        tags={**GOOD, **numbers, "system": "saliency"},
        items=items,
        scores=pd.DataFrame({"item_id": names, "score": scores}),
    )


def of_frames(tp: list[int]) -> Evidence:
    """A version over two videos of as many test frames, that found so many of 10 moving pixels."""
    rows, counts = [], []
    for video in ("a/x", "b/y"):
        for k in range(len(tp)):
            rows.append((f"{video}/{k:06d}", "train", video, f"{video} first half"))
            rows.append((f"{video}/{k + 900:06d}", "test", video, f"{video} second half {k}"))
            counts.append((f"{video}/{k + 900:06d}", tp[k], 0, 10 - tp[k], 90))
    return Evidence(
        model="toy",
        version="1",
        tags={**GOOD, **dict.fromkeys(("f_measure", "recall", "precision"), "0.5"),
              "system": "background"},
        items=pd.DataFrame(rows, columns=["item_id", "subset", "group", "sha256"]).assign(path="p"),
        scores=scenes.scored(
            pd.DataFrame(counts, columns=["item_id", "tp", "fp", "fn", "tn"])
        ),
    )  # fmt: skip


def test_images_are_judged_by_their_f_measure() -> None:
    verdict = judge(of_images([0.9, 0.7, 0.8, 0.6, 1.0]))
    assert verdict.accepted and verdict.numbers == {
        "f_beta": 0.8, "num_images": 5, "latency_sec": 0.1,
    }  # fmt: skip
    low = judge(of_images([0.4] * 6))
    assert low.reasons == ["F-measure: 0.4000 on 6 images is below 0.5"]
    names = [check.name for check in low.checks]
    assert "test images learnt from" in names and "seconds, small image" in names
    worse = judge(of_images([0.7] * 6), of_images([0.8] * 6))
    assert worse.reasons == ["P(loss <= 0.02): only 0.000 sure to lose no more than 0.02 on the "
                             "same 6 images"]  # fmt: skip
    assert worse.numbers["champion_f_beta"] == 0.8 and worse.numbers["gain"] == pytest.approx(-0.1)
    assert judge(of_images([0.79] * 6), of_images([0.8] * 6)).accepted
    own = judge(of_images([0.9] * 5, learnt="i3"))
    assert "the challenger was trained on i3" in own.reasons[0]
    broken = judge(of_images([0.9, float("nan"), 0.9, 0.9, 0.9]))
    assert "NaN or infinity for i1" in broken.reasons[0]


def test_frames_are_judged_in_blocks_by_the_f_measure_of_their_videos() -> None:
    verdict = judge(of_frames([9] * 40))
    assert verdict.accepted and verdict.numbers["num_blocks"] == 8
    assert verdict.numbers["f_measure"] == pytest.approx(18 / 19, abs=1e-6)
    worse = judge(of_frames([6] * 40), of_frames([9] * 40))
    assert refused(worse) == ["P(loss <= 0.02)"] and "same 8 blocks" in worse.reasons[0]
    assert judge(of_frames([9] * 40), of_frames([6] * 40)).accepted


def test_too_few_blocks_decide_nothing() -> None:
    verdict = judge(of_frames([9] * 20), of_frames([6] * 20))
    assert verdict.reasons == [
        "P(loss <= 0.02): 4 blocks are too few to compare two models on, expected 5"
    ]
    assert judge(of_frames([9] * 20)).accepted  # the first one is not compared


def test_what_a_network_over_scenes_must_not_have_seen() -> None:
    """Its video's first half trains by design, also where frames are the same to the bit."""
    same = of_frames([9] * 40)
    same.items["sha256"] = "nothing happens in " + same.items["group"]
    assert judge(same).accepted
    renamed = of_frames([9] * 40)
    copied = (renamed.items["group"] == "b/y") & (renamed.items["subset"] == "train")
    renamed.items.loc[copied, "sha256"] = "a/x second half 3"
    assert judge(renamed).reasons == [
        "test frames learnt from: the challenger was trained on a/x/000903"
    ]
    champion = of_frames([9] * 40)
    champion.items.loc[champion.items["item_id"] == "b/y/000907", "subset"] = "train"
    assert judge(of_frames([9] * 40), champion).reasons == [
        "test frames learnt from: the champion was trained on b/y/000907"
    ]


def test_a_champion_that_lacks_frames_is_not_taken_for_beaten() -> None:
    champion = of_frames([9] * 40)
    champion.scores.drop(index=3, inplace=True)
    verdict = judge(of_frames([9] * 40), champion)
    assert "the champion has no prediction for a/x/000903" in verdict.reasons[0]


def test_the_program_that_asks_a_model_is_there() -> None:
    """It is started by its file's name, which no import checks."""
    from flowsight.registry import model_answers

    assert Path(model_answers._PROBE).is_file()
