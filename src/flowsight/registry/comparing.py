"""Scores of the same items by two models: the measure of each, and how sure their difference is.

A measure is the mean over groups (videos of scenes; else there is one group) of the weighted mean
of the scores in it. With the weights of `subjects.scenes` that is the F-measure of a group's summed
counts, as the evaluation reports it.

Frames that follow each other say nearly the same, so a bootstrap that drew them one by one would be
far too sure. They are drawn in blocks of consecutive frames, within each video. The videos
themselves are fixed: how sure the difference is, is told for these scenes, not for others (with two
videos nothing honest can be said about others).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]
_CHUNK = 64  # draws held in memory at once


@dataclass(frozen=True, eq=False)
class Blocks:
    """A group's scores, summed over each of its blocks of items."""

    items: tuple[tuple[str, ...], ...]
    """(N,) names of the items of each block."""
    sums: Floats
    """(N,) of weight x score."""
    weights: Floats
    """(N,)."""


def blocks(scores: pd.DataFrame, block_frames: int) -> dict[str, Blocks]:
    """Group -> its blocks.

    Args:
        scores: item_id and score; with group and weight its items are put together, in the order
            of their names, at least `block_frames` at a time.
        block_frames: see there; items without a group are a block each.
    """
    scores = scores.sort_values("item_id", kind="stable")
    if "group" not in scores:
        names = tuple((str(item),) for item in scores["item_id"])
        values = scores["score"].to_numpy(np.float64)
        return {"": Blocks(names, values, np.ones(len(values)))}
    found = {}
    for group, own in scores.groupby("group"):
        count = max(1, len(own) // block_frames)
        places = np.array_split(np.arange(len(own)), count)
        weights = own["weight"].to_numpy(np.float64)
        sums = own["score"].to_numpy(np.float64) * weights
        listed = own["item_id"].astype(str).to_numpy()
        found[str(group)] = Blocks(
            tuple(tuple(listed[p]) for p in places),
            np.array([sums[p].sum() for p in places]),
            np.array([weights[p].sum() for p in places]),
        )
    return found


def measure(found: dict[str, Blocks]) -> float:
    """The mean over groups; nan without any."""
    if not any(len(own.items) for own in found.values()):
        return float("nan")
    return float(np.mean([_ratio(own.sums.sum(), own.weights.sum()) for own in found.values()]))


def _ratio(sums: npt.ArrayLike, weights: npt.ArrayLike) -> Floats:
    """Where nothing weighs, nothing was there and nothing was found: right."""
    sums, weights = np.asarray(sums, np.float64), np.asarray(weights, np.float64)
    return np.divide(sums, weights, out=np.ones(sums.shape), where=weights > 0)


def resampled_gains(
    own: dict[str, Blocks], theirs: dict[str, Blocks], *, num_samples: int, seed: int
) -> Floats:
    """How much better one model is than the other, for sets of blocks drawn anew.

    Args:
        own, theirs: the same groups and blocks, scored by either model.
        num_samples: draws B.
        seed: of the draws, which are the same for both.

    Returns:
        (B,) differences of the measure.
    """
    rng, gains = np.random.default_rng(seed), []
    for start in range(0, num_samples, _CHUNK):
        size = min(_CHUNK, num_samples - start)
        gain = np.zeros(size)
        for group, mine in own.items():
            other, count = theirs[group], len(mine.items)
            drawn = rng.multinomial(count, np.full(count, 1 / count), size=size)
            gain += _ratio(drawn @ mine.sums, drawn @ mine.weights)
            gain -= _ratio(drawn @ other.sums, drawn @ other.weights)
        gains.append(gain / len(own))
    return np.concatenate(gains)
