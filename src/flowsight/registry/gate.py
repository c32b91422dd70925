"""The gate before service: pure functions from the evidence of two versions to a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flowsight.params.promotion import PromotionParams
from flowsight.registry import comparing
from flowsight.registry.comparing import Blocks
from flowsight.registry.evidence import Evidence
from flowsight.registry.subject import Kind

if TYPE_CHECKING:
    import pandas as pd

FEWEST = 5
"""Items (or blocks of frames) below which nothing is said of a difference."""
Scored = dict[str, Blocks]
"""Group -> its blocks, see `comparing`."""


@dataclass(frozen=True)
class Check:
    """One row of the table that a person reads."""

    name: str
    wanted: str
    champion: str
    challenger: str
    passed: bool
    why: str = ""
    """Said where it did not pass."""


@dataclass(frozen=True)
class Verdict:
    """All rows, and the numbers behind them."""

    checks: tuple[Check, ...]
    numbers: Mapping[str, float]

    @property
    def accepted(self) -> bool:
        """Whether every row passed."""
        return all(check.passed for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """Of the rows that did not pass."""
        return [f"{check.name}: {check.why}" for check in self.checks if not check.passed]


def judge(
    challenger: Evidence,
    champion: Evidence | None,
    limits: PromotionParams,
    *,
    champion_scores: pd.DataFrame | None = None,
    latency_sec: float | None = None,
    repository: str,
    seed: int,
) -> Verdict:
    """Compare two versions on the challenger's test items.

    Args:
        challenger: the one that wants to serve.
        champion: the one that serves; None: only the absolute thresholds count.
        limits: `promote` of the system's parameters.
        champion_scores: of all the challenger's test items; None without a champion.
        latency_sec: median seconds of the challenger for a short video or a small image; None: not
            measured.
        repository: id of this repository.
        seed: of the resampling.
    """
    other = champion.tags.get if champion else (lambda name, default="": default)
    rows = [
        _origin(challenger, champion, repository),
        _same("data gate", "passed", other("data_gate", ""), challenger.tags.get("data_gate", "")),
        _finite(challenger),
        _leakage(challenger, champion),
    ]
    kind = challenger.kind
    own = comparing.blocks(challenger.scores, limits.block_items)
    theirs: Scored = {}
    if champion_scores is not None:
        same = champion_scores["item_id"].isin(set(challenger.scores["item_id"]))
        theirs = comparing.blocks(champion_scores[same], limits.block_items)
    value = comparing.measure(own)
    numbers = {kind.measure: value, f"num_{kind.units}": float(_count(own))}
    rows.append(_minimum(value, theirs, own, limits, kind))
    if champion is not None:
        rows.append(_not_worse(own, theirs, limits, seed, numbers, kind))
    rows.append(_latency(latency_sec, limits, kind))
    rows.append(_size(challenger, champion, limits))
    if latency_sec is not None:
        numbers["latency_sec"] = latency_sec
    return Verdict(tuple(rows), {k: round(v, 6) for k, v in numbers.items() if math.isfinite(v)})


def _origin(challenger: Evidence, champion: Evidence | None, repository: str) -> Check:
    found = [e.tags.get("repository", "none") for e in (champion, challenger) if e is not None]
    why = f"trained in the repository {found[-1][:10]}, this one is {repository[:10]}"
    theirs = found[0][:10] if champion else ""
    return Check(
        "repository", repository[:10], theirs, found[-1][:10], found[-1] == repository, why
    )


def _same(name: str, wanted: str, champion: str, challenger: str) -> Check:
    why = f"expected {wanted}, got {challenger or 'nothing'}"
    return Check(name, wanted, champion, challenger or "none", challenger == wanted, why)


def _finite(challenger: Evidence) -> Check:
    """Its numbers: the metrics it was registered with, every score and every probability."""
    kind = challenger.kind
    bad = [name for name in kind.tagged if not _is_number(challenger.tags.get(name))]
    given = challenger.scores.select_dtypes("number")
    rows = ~np.isfinite(given.to_numpy(dtype=np.float64)).all(axis=1)
    items = challenger.scores["item_id"][rows].tolist()
    said = [f"{name} is {challenger.tags.get(name, 'missing')}" for name in bad]
    said += [f"NaN or infinity for {', '.join(items[:3])}"] if items else []
    unscored = sorted(set(challenger.tested["item_id"]) - set(challenger.scores["item_id"]))
    said += [f"no prediction for {', '.join(unscored[:3])}"] if unscored else []
    said += [f"no test {kind.items}"] if challenger.tested.empty else []
    why = "; ".join(said)
    return Check("numbers", "all there, finite", "", "bad" if said else "good", not said, why)


def _is_number(text: str | None) -> bool:
    try:
        return math.isfinite(float(text or "nan"))
    except ValueError:
        return False


def _leakage(challenger: Evidence, champion: Evidence | None) -> Check:
    """Items of the test that one of them has learnt from, by name or by content."""
    counts, said = [], []
    for who, evidence in (("champion", champion), ("challenger", challenger)):
        if evidence is None:
            counts.append("")
            continue
        seen = _leaked(challenger.tested, evidence.learnt)
        counts.append(f"{len(seen)} of {len(challenger.tested)}")
        if seen:
            more = ", ..." if len(seen) > 3 else ""
            said.append(f"the {who} was trained on {', '.join(seen[:3])}{more}")
    why = "; ".join(said)
    name = f"test {challenger.kind.items} learnt from"
    return Check(name, "none", counts[0], counts[1], not said, why)


def _leaked(tested: pd.DataFrame, learnt: pd.DataFrame) -> list[str]:
    """Names of the tested that were learnt, or whose content was.

    Of a video of scenes one half trains by design, and where nothing happens its frames may be the
    same to the bit: within a group (the video) content tells nothing, the name does.
    """
    same = tested["item_id"].isin(set(learnt["item_id"]))
    if "group" in tested and "group" in learnt:
        known = learnt.dropna(subset=["sha256"])[["sha256", "group"]].drop_duplicates()
        pairs = tested[["item_id", "sha256", "group"]].merge(known, on="sha256")
        other = pairs["group_x"] != pairs["group_y"]
        same |= tested["item_id"].isin(set(pairs.loc[other, "item_id"]))
    else:
        same |= tested["sha256"].isin(set(learnt["sha256"].dropna()))
    return sorted(tested.loc[same, "item_id"])


def _count(scored: Scored) -> int:
    return sum(len(own.items) for own in scored.values())


def _minimum(
    value: float, theirs: Scored, own: Scored, limits: PromotionParams, kind: Kind
) -> Check:
    least = limits.min_measure
    why = f"{value:.4f} on {_count(own)} {kind.units} is below {least:g}"
    champion = f"{comparing.measure(theirs):.4f}" if theirs else ""
    return Check(kind.title, f">= {least:g}", champion, f"{value:.4f}", value >= least, why)


def _not_worse(
    own: Scored,
    theirs: Scored,
    limits: PromotionParams,
    seed: int,
    numbers: dict[str, float],
    kind: Kind,
) -> Check:
    """How sure it is that the challenger loses no more than allowed: the same items, drawn anew."""
    name = f"P(loss <= {limits.max_loss:g})"
    wanted = f">= {limits.probability:g}"
    missing = sorted(_names(own) - _names(theirs))
    count = _count(own)
    if missing or count < FEWEST:
        why = f"the champion has no prediction for {', '.join(missing[:3])}"
        few = f"{count} {kind.units} are too few to compare two models on, expected {FEWEST}"
        return Check(name, wanted, "", "unknown", False, why if missing else few)
    means = comparing.resampled_gains(own, theirs, num_samples=limits.bootstrap_samples, seed=seed)
    # the smallest step between two means is 1 / items: rounding must not count as a loss
    probability = float(np.mean(means >= -limits.max_loss - 1e-9))
    low, high = np.quantile(means, [0.025, 0.975])
    before = comparing.measure(theirs)
    gain = comparing.measure(own) - before
    numbers |= {
        f"champion_{kind.measure}": before,
        "gain": gain,
        "gain_low": float(low),
        "gain_high": float(high),
        "probability": probability,
    }
    shown = f"{probability:.3f} (gain {gain:+.4f}, 95 % {low:+.4f}..{high:+.4f})"
    why = (
        f"only {probability:.3f} sure to lose no more than {limits.max_loss:g} on the same "
        f"{count} {kind.units}"
    )
    return Check(name, wanted, "", shown, probability >= limits.probability, why)


def _names(scored: Scored) -> set[str]:
    return {item for own in scored.values() for block in own.items for item in block}


def _latency(own: float | None, limits: PromotionParams, kind: Kind) -> Check:
    name = "seconds, small image" if kind.items == "images" else "seconds, short video"
    wanted = "any" if limits.max_latency_sec is None else f"<= {limits.max_latency_sec:g} s"
    if own is None:
        passed = limits.max_latency_sec is None
        return Check(name, wanted, "", "not measured", passed, "not measured")
    passed = limits.max_latency_sec is None or own <= limits.max_latency_sec
    why = f"{own:.3f} s is more than {limits.max_latency_sec} s"
    return Check(name, wanted, "", f"{own:.3f} s", passed, why)


def _size(challenger: Evidence, champion: Evidence | None, limits: PromotionParams) -> Check:
    sizes = [_megabytes(e) if e else None for e in (champion, challenger)]
    texts = ["" if size is None else f"{size:.1f} MB" for size in sizes]
    own, most = sizes[1], limits.max_size_mb
    wanted = "any" if most is None else f"<= {most:g} MB"
    passed = most is None or (own is not None and own <= most)
    return Check("size", wanted, texts[0], texts[1] or "unknown", passed, f"{texts[1]} is too much")


def _megabytes(evidence: Evidence) -> float | None:
    size = evidence.tags.get("size_bytes", "")
    return int(size) / 1e6 if size.isdigit() else None


def table(checks: Sequence[Check]) -> list[str]:
    """The checks as lines of text."""
    rows = [("check", "wanted", "champion", "challenger", "")]
    rows += [
        (c.name, c.wanted, c.champion or "-", c.challenger, "ok" if c.passed else "REFUSED")
        for c in checks
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
