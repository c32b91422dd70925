"""The evaluation of networks over clips: one row at a time, with and without attention.

The accuracy of *videos* is that of the logits averaged over a video's views; that of *clips* is the
share of single views that are right by themselves. Nothing is told before `leakage.check_groups`
has looked at the splits.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from flowsight.classifiers import localization
from flowsight.contract import Folders
from flowsight.errors import InputError
from flowsight.evaluation import figures
from flowsight.evaluation.predictions import (
    FILE,
    Scores,
    check_split,
    read_classes,
    read_scores,
    read_table,
    records,
)
from flowsight.files import atomic_dir, write_csv, write_json
from flowsight.metrics import bootstrap, classification
from flowsight.metrics.bootstrap import Hits, Resampling
from flowsight.metrics.classification import Floats
from flowsight.params.config import Params
from flowsight.systems.residual3d import leakage, regions
from flowsight.systems.residual3d import paper as residual3d_paper
from flowsight.systems.residual3d.params import SYSTEM

VIEWS_RIGHT = "views_right"
"""Column of the predictions: share of a video's views that are right by themselves."""
METRICS = ("top1", "clip_top1", "top5", "mean_class")
SERIES = {
    "printed, UCF-101": "#a9b4c4",
    "printed, HMDB-51": "#d3cbb8",
    "ours": "#18866b",
}
_DECIMALS = 6


@dataclass(frozen=True, kw_only=True, eq=False)
class RowResult:
    """One row on one split."""

    row: str
    split_id: str
    scores: Scores
    views_right: Floats
    """(N,) of each video, in [0, 1]."""

    @property
    def is_test(self) -> np.ndarray:
        """(N,) which videos are scored."""
        return self.scores.subsets == "test"

    def hits(self) -> Floats:
        """(number of test videos,) 1.0 where the best class is right."""
        ranks = classification.label_ranks(self.scores.probs, self.scores.labels)
        return (ranks[self.is_test] == 0).astype(np.float64)


def evaluate(params: Params, folders: Folders, out: Path) -> None:
    """Write `results/residual3d`: metrics.json, tables, joined predictions and pictures.

    Args:
        params: all parameters; the rows of the system are evaluated.
        folders: inputs.
        out: folder to replace.

    Raises:
        InputError: no such row, predictions that are missing or do not fit the splits, or a group
            of clips on two sides of a split.
    """
    rows = list(params.system(SYSTEM).rows)
    if not rows:
        raise InputError(f"expected rows of system {SYSTEM!r} in the parameters, got none")
    classes = read_classes(folders["manifest"])
    clips = read_table(folders["manifest"] / "clips.csv", ("clip_id", "label", "group", "shard"))
    splits = {
        s: read_table(folders["splits"] / f"{s}.csv", ("clip_id", "subset"))
        for s in params.splits.ids
    }
    groups = dict(zip(clips["clip_id"], clips["group"], strict=True))
    num_groups = leakage.check_groups(splits, groups)
    labels = dict(zip(clips["clip_id"], clips["label"], strict=True))
    results = [_read(name, s, folders, classes, labels) for name in rows for s in splits]
    resampling = Resampling(
        num_samples=params.system(SYSTEM).evaluate.bootstrap_samples,
        confidence=params.system(SYSTEM).evaluate.confidence,
        seed=params.seed,
    )
    table = split_table(results, len(classes))
    counts = _status_counts(folders["status"])
    found = _localization(splits, labels, classes, params, folders)
    metrics: dict[str, float] = flat_metrics(table, results, resampling)
    metrics |= localization.flat_metrics(found)
    metrics |= {
        "num_test_clips": len({c for r in results for c in r.scores.clip_ids[r.is_test].tolist()}),
        "num_groups_checked": num_groups,
        "num_quarantined": counts.get("quarantined", 0),
        "num_absent": counts.get("absent", 0),
    }
    top1 = {(r["row"], r["split_id"]): float(r["top1"]) for r in records(table)}
    warned = leakage.warnings(top1, params)
    for text in warned:
        print(f"warning: {text}", file=sys.stderr)
    joined = joined_predictions(results, classes)
    paper = residual3d_paper.paper_table(table, params, counts)
    with atomic_dir(out) as folder:
        write_json(
            {k: v if isinstance(v, int) else round(v, _DECIMALS) for k, v in metrics.items()},
            folder / "metrics.json",
        )
        write_json({"num_groups": num_groups, "warnings": warned}, folder / "leakage.json")
        write_csv(table.round(_DECIMALS), folder / "per_split.csv")
        gains = comparisons(results, params, resampling)
        write_csv(gains.round(_DECIMALS), folder / "comparisons.csv")
        write_csv(found.round(_DECIMALS), folder / "localization.csv")
        write_csv(paper, folder / "paper_table.csv")
        joined.to_parquet(folder / "predictions.parquet", index=False, compression="zstd")
        figures.bar_figure(bars(paper, metrics, params), SERIES, folder / "accuracy.png")
        shown = attended_rows(params)
        regions.write_regions(
            shown[-1] if shown else None, params, folders, joined, folder / "regions"
        )


def _localization(
    splits: dict[str, pd.DataFrame],
    labels: dict[str, str],
    classes: list[str],
    params: Params,
    folders: Folders,
) -> pd.DataFrame:
    """How well the test clips' spatial attention fits the true masks."""
    shown = {name: localization.Shown(row=name) for name in attended_rows(params)}
    return localization.localization_table(
        shown,
        {s: split[split["subset"] == "test"] for s, split in splits.items()},
        {clip: classes.index(label) for clip, label in labels.items()},
        attention=folders["attention"] if shown else Path(),
        truth=folders["truth"],
        num_frames=params.system(SYSTEM).evaluate.localization_frames,
    )


def attended_rows(params: Params) -> list[str]:
    """Rows of the system whose networks have spatial attention to show."""
    return [
        name
        for name, row in params.system(SYSTEM).rows.items()
        if row.network.attention and row.network.attention.spatial
    ]


def baseline_of(name: str, params: Params) -> str | None:
    """The row that differs by having no attention: same backbone and modality."""
    row = params.system(SYSTEM).rows[name]
    if row.network.attention is None:
        return None
    for other, theirs in params.system(SYSTEM).rows.items():
        same = (theirs.network.backbone, theirs.input.modality) == (
            row.network.backbone,
            row.input.modality,
        )
        if same and theirs.network.attention is None:
            return other
    return None


def _read(
    name: str, split_id: str, folders: Folders, classes: list[str], labels: dict[str, str]
) -> RowResult:
    path = folders["predictions"] / f"{name}-{split_id}"
    scores = read_scores(path, classes, extra=(VIEWS_RIGHT,))
    check_split(scores, folders["splits"] / f"{split_id}.csv", labels, classes)
    if not (scores.subsets == "test").any():
        raise InputError(f"expected test clips in split {split_id}, got none; see splits")
    views = pd.read_parquet(path / FILE, columns=["clip_id", VIEWS_RIGHT]).set_index("clip_id")
    return RowResult(
        row=name,
        split_id=split_id,
        scores=scores,
        views_right=views[VIEWS_RIGHT].reindex(scores.clip_ids).to_numpy(np.float64),
    )


def _status_counts(status: Path) -> dict[str, int]:
    table = read_table(status, ("clip_id", "status"))
    return {str(name): int(count) for name, count in table["status"].value_counts().items()}


def split_table(results: list[RowResult], num_classes: int) -> pd.DataFrame:
    """Per row and split the test numbers.

    Returns:
        Columns row, split_id, num_clips, top1 (videos), clip_top1, top5, mean_class, log_loss.
    """
    rows = []
    for result in results:
        labels = result.scores.labels[result.is_test]
        probs = result.scores.probs[result.is_test]
        best = classification.predicted_classes(probs)
        rows.append(
            {
                "row": result.row,
                "split_id": result.split_id,
                "num_clips": len(labels),
                "top1": classification.top_k_accuracy(probs, labels),
                "clip_top1": float(result.views_right[result.is_test].mean()),
                "top5": classification.top_k_accuracy(probs, labels, 5),
                "mean_class": classification.mean_class_accuracy(labels, best, num_classes),
                "log_loss": classification.log_loss(probs, labels),
            }
        )
    return pd.DataFrame(rows)


def flat_metrics(
    table: pd.DataFrame, results: list[RowResult], resampling: Resampling
) -> dict[str, float]:
    """Means over splits as flat names: `<row>/<metric>`, `_std`, and top1's interval."""
    metrics: dict[str, float] = {}
    for name, own in table.groupby("row", sort=False):
        for metric in METRICS:
            metrics[f"{name}/{metric}"] = float(own[metric].mean())
            if len(own) > 1:
                metrics[f"{name}/{metric}_std"] = float(own[metric].std(ddof=1))
        mine = [r for r in results if r.row == name]
        ends = bootstrap.interval(_hits(mine, [r.hits() for r in mine], results), resampling)
        if ends:
            metrics[f"{name}/top1_low"], metrics[f"{name}/top1_high"] = ends
    return metrics


def comparisons(results: list[RowResult], params: Params, resampling: Resampling) -> pd.DataFrame:
    """What attention changes: each attended row against its baseline, paired clip by clip.

    Returns:
        Columns row, baseline, difference, low, high (shares of videos).
    """
    rows = []
    for name in dict.fromkeys(r.row for r in results):
        base = baseline_of(name, params)
        if base is None:
            continue
        own, theirs = ([r for r in results if r.row == n] for n in (name, base))
        gains = [a.hits() - b.hits() for a, b in zip(own, theirs, strict=True)]
        ends = bootstrap.interval(_hits(own, gains, results), resampling)
        low, high = ends or (np.nan, np.nan)
        rows.append((name, base, float(np.mean([g.mean() for g in gains])), low, high))
    return pd.DataFrame(rows, columns=["row", "baseline", "difference", "low", "high"])


def _hits(own: list[RowResult], values: list[Floats], results: list[RowResult]) -> list[Hits]:
    names = sorted({clip for r in results for clip in r.scores.clip_ids.tolist()})
    index = {clip: i for i, clip in enumerate(names)}
    return [
        Hits(
            items=np.array([index[c] for c in r.scores.clip_ids[r.is_test].tolist()], np.int64),
            values=value,
        )
        for r, value in zip(own, values, strict=True)
    ]


def joined_predictions(results: list[RowResult], classes: list[str]) -> pd.DataFrame:
    """Every row, split and video: row, split_id, clip_id, subset, label, predicted, prob,
    views_right and `prob_<class>` in float32."""
    names = np.array(classes, dtype=object)
    parts = []
    for result in results:
        probs = result.scores.probs
        best = classification.predicted_classes(probs)
        part = {
            "row": result.row,
            "split_id": result.split_id,
            "clip_id": result.scores.clip_ids,
            "subset": result.scores.subsets,
            "label": names[result.scores.labels],
            "predicted": names[best],
            "prob": probs[np.arange(len(best)), best].astype(np.float32),
            VIEWS_RIGHT: result.views_right,
        }
        part |= {f"prob_{c}": probs[:, k].astype(np.float32) for k, c in enumerate(classes)}
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


def bars(
    paper: pd.DataFrame, metrics: dict[str, float], params: Params
) -> dict[str, dict[str, float]]:
    """Table 2's bars, ours beside them; rows of ours that stand for no printed method come last."""
    shown: dict[str, dict[str, float]] = {}
    for printed in records(paper[paper["table"].astype(str) == "2"]):
        entry = shown.setdefault(printed["method"], {})
        entry[f"printed, {printed['dataset']}"] = printed["value"]
    own = {m: residual3d_paper.row_of(m, params) for m in shown}
    for method, name in own.items():
        if name is not None:
            shown[method]["ours"] = 100 * metrics[f"{name}/top1"]
    rest = [n for n in params.system(SYSTEM).rows if n not in own.values()]
    return shown | {name: {"ours": 100 * metrics[f"{name}/top1"]} for name in rest}
