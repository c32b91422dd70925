"""Streams and their fusion: from probabilities to per-split numbers, means and intervals.

A *fusion* is a named pair of rows (`two_stream`, `attention`, ...); its *streams* are `spatial`,
`temporal` and `fused`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from flowsight.evaluation.predictions import Scores
from flowsight.metrics import bootstrap, classification
from flowsight.metrics.bootstrap import Hits, Resampling
from flowsight.metrics.classification import Floats, Ints
from flowsight.metrics.fusion import FusionWeight, choose_weight, fuse

STREAMS = ("spatial", "temporal", "fused")
METRICS = ("top1", "top5", "mean_class")


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitResult:
    """One fusion on one split."""

    fusion: str
    split_id: str
    clip_ids: npt.NDArray[np.str_]
    """(N,) validation and test clips, sorted."""
    subsets: npt.NDArray[np.str_]
    labels: Ints
    probs: Mapping[str, Floats]
    """Stream -> (N, K)."""
    weight: FusionWeight

    @property
    def is_test(self) -> npt.NDArray[np.bool_]:
        """(N,) which clips are scored."""
        return self.subsets == "test"

    def hits(self, stream: str) -> Floats:
        """(number of test clips,) 1.0 where the stream's best class is right."""
        ranks = classification.label_ranks(self.probs[stream], self.labels)
        return (ranks[self.is_test] == 0).astype(np.float64)


def fuse_split(
    name: str, split_id: str, spatial: Scores, temporal: Scores, steps: int
) -> SplitResult:
    """Choose the weight on the validation clips, then fuse all clips with it."""
    val = spatial.subsets == "val"
    weight = choose_weight(spatial.probs[val], temporal.probs[val], spatial.labels[val], steps)
    fused = fuse(spatial.probs, temporal.probs, weight.value)
    return SplitResult(
        fusion=name,
        split_id=split_id,
        clip_ids=spatial.clip_ids,
        subsets=spatial.subsets,
        labels=spatial.labels,
        probs={"spatial": spatial.probs, "temporal": temporal.probs, "fused": fused},
        weight=weight,
    )


def split_table(results: Sequence[SplitResult], num_classes: int) -> pd.DataFrame:
    """Per fusion, split and stream: the test numbers and the fusion weight.

    Returns:
        Columns fusion, split_id, stream, num_clips, top1, top5, mean_class, log_loss (shares in
        [0, 1]; nats), weight (the stream's share in the fusion), weight_source, num_val_clips.
    """
    rows = []
    for result in results:
        labels = result.labels[result.is_test]
        shares = {"spatial": result.weight.value, "temporal": 1 - result.weight.value, "fused": 1.0}
        for stream in STREAMS:
            probs = result.probs[stream][result.is_test]
            best = classification.predicted_classes(probs)
            rows.append(
                {
                    "fusion": result.fusion,
                    "split_id": result.split_id,
                    "stream": stream,
                    "num_clips": len(labels),
                    "top1": classification.top_k_accuracy(probs, labels),
                    "top5": classification.top_k_accuracy(probs, labels, 5),
                    "mean_class": classification.mean_class_accuracy(labels, best, num_classes),
                    "log_loss": classification.log_loss(probs, labels),
                    "weight": shares[stream],
                    "weight_source": result.weight.source,
                    "num_val_clips": result.weight.num_clips,
                }
            )
    return pd.DataFrame(rows)


def flat_metrics(
    table: pd.DataFrame, results: Sequence[SplitResult], resampling: Resampling
) -> dict[str, float]:
    """Means over splits as flat names: `<fusion>/<stream>/<metric>`.

    Beside `top1` stand `top1_std` (standard deviation over splits, only with two or more) and
    `top1_low`, `top1_high` (ends of the clip-bootstrap interval).
    """
    metrics: dict[str, float] = {}
    for (name, stream), rows in table.groupby(["fusion", "stream"], sort=False):
        key = f"{name}/{stream}"
        for metric in METRICS:
            metrics[f"{key}/{metric}"] = float(rows[metric].mean())
            if len(rows) > 1:
                metrics[f"{key}/{metric}_std"] = float(rows[metric].std(ddof=1))
        own = [r for r in results if r.fusion == name]
        ends = bootstrap.interval(
            _hits(own, [r.hits(str(stream)) for r in own], _clip_index(results)), resampling
        )
        if ends:
            metrics[f"{key}/top1_low"], metrics[f"{key}/top1_high"] = ends
        if stream == "spatial":
            metrics[f"{name}/fusion_weight"] = float(rows["weight"].mean())
    return metrics


def comparisons(
    results: Sequence[SplitResult], resampling: Resampling, headline: str | None = None
) -> pd.DataFrame:
    """Paired differences of top-1 accuracy, mean over splits, with intervals on the same draws.

    Each fusion is compared with the first one, stream by stream, and so is `headline` with each
    (None, or one that is not there: the last); within each fusion, the fused result with each of
    its streams.

    Returns:
        Columns method, baseline (`<fusion>/<stream>`), difference, low, high (shares of clips).
    """
    names = list(dict.fromkeys(r.fusion for r in results))
    best = headline if headline in names else names[-1]
    pairs = [((n, s), (names[0], s)) for n in names[1:] for s in STREAMS]
    pairs += [((best, s), (n, s)) for n in names[1:] if n != best for s in STREAMS]
    pairs += [((n, "fused"), (n, s)) for n in names for s in STREAMS[:2]]
    index = _clip_index(results)
    rows = []
    for (name, stream), (other, base) in pairs:
        own = [r for r in results if r.fusion == name]
        theirs = [r for r in results if r.fusion == other]
        gains = [a.hits(stream) - b.hits(base) for a, b in zip(own, theirs, strict=True)]
        ends = bootstrap.interval(_hits(own, gains, index), resampling)
        low, high = ends or (np.nan, np.nan)
        mean = float(np.mean([gain.mean() for gain in gains]))
        rows.append((f"{name}/{stream}", f"{other}/{base}", mean, low, high))
    return pd.DataFrame(rows, columns=["method", "baseline", "difference", "low", "high"])


def _clip_index(results: Sequence[SplitResult]) -> dict[str, int]:
    clips = sorted({clip for r in results for clip in r.clip_ids.tolist()})
    return {clip: i for i, clip in enumerate(clips)}


def _hits(
    results: Sequence[SplitResult], values: Sequence[Floats], index: Mapping[str, int]
) -> list[Hits]:
    hits = []
    for result, value in zip(results, values, strict=True):
        items = np.array([index[c] for c in result.clip_ids[result.is_test].tolist()], np.int64)
        hits.append(Hits(items=items, values=value))
    return hits


def joined_predictions(results: Sequence[SplitResult], classes: Sequence[str]) -> pd.DataFrame:
    """Every fusion, split, stream and clip with its probabilities.

    Returns:
        Columns fusion, split_id, stream, clip_id, subset, label, predicted, prob (of the predicted
        class), and `prob_<class>` in float32.
    """
    names = np.array(classes, dtype=object)
    parts = []
    for result in results:
        for stream in STREAMS:
            probs = result.probs[stream]
            best = classification.predicted_classes(probs)
            part = {
                "fusion": result.fusion,
                "split_id": result.split_id,
                "stream": stream,
                "clip_id": result.clip_ids,
                "subset": result.subsets,
                "label": names[result.labels],
                "predicted": names[best],
                "prob": probs[np.arange(len(best)), best].astype(np.float32),
            }
            part |= {f"prob_{c}": probs[:, k].astype(np.float32) for k, c in enumerate(classes)}
            parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)
