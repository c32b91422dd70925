"""The work of `evaluate@<system>`: predictions to numbers, tables and pictures; no torch.

Everything is read from what the parameters list (rows x splits, shards), never from what happens to
lie in a folder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from flowsight.classifiers import localization
from flowsight.classifiers.localization import Shown
from flowsight.contract import Folders
from flowsight.errors import InputError
from flowsight.evaluation import figures
from flowsight.evaluation.predictions import (
    Scores,
    check_joined,
    check_split,
    read_classes,
    read_scores,
    read_table,
)
from flowsight.files import atomic_dir, write_csv, write_json
from flowsight.metrics import classification
from flowsight.metrics.bootstrap import Resampling
from flowsight.params.config import Params
from flowsight.systems.two_stream import gallery, paper, scoring
from flowsight.systems.two_stream.params import SYSTEM, FusionParams
from flowsight.systems.two_stream.scoring import STREAMS, SplitResult

__all__ = ["evaluate", "shown_maps", "system_fusions"]

_DECIMALS = 6


def evaluate(params: Params, folders: Folders, out: Path) -> None:
    """Write `results/two_stream`: metrics.json, tables, joined predictions and pictures.

    Args:
        params: all parameters.
        folders: inputs.
        out: folder to replace.

    Raises:
        InputError: predictions are missing or do not fit the splits.
    """
    fusions = system_fusions(params)
    classes = read_classes(folders["manifest"])
    splits = {
        s: read_table(folders["splits"] / f"{s}.csv", ("clip_id", "subset"))
        for s in params.splits.ids
    }
    results = _fused_results(fusions, params, folders, classes)
    resampling = Resampling(
        num_samples=params.system(SYSTEM).evaluate.bootstrap_samples,
        confidence=params.system(SYSTEM).evaluate.confidence,
        seed=params.seed,
    )
    counts = _status_counts(folders["status"])
    table = scoring.split_table(results, len(classes))
    clips = read_table(folders["manifest"] / "clips.csv", ("clip_id", "label"))
    shown = shown_maps(fusions, params)
    found = localization.localization_table(
        shown,
        splits,
        dict(zip(clips["clip_id"], clips["label"].map(classes.index), strict=True)),
        attention=folders["attention"] if shown else Path(),
        truth=folders["truth"],
        num_frames=params.system(SYSTEM).evaluate.localization_frames,
    )
    metrics: dict[str, float] = scoring.flat_metrics(table, results, resampling)
    metrics |= localization.flat_metrics(found)
    metrics |= _clip_counts(results, counts)
    joined = scoring.joined_predictions(results, classes)
    with atomic_dir(out) as folder:
        write_json({name: _rounded(value) for name, value in metrics.items()},
                   folder / "metrics.json")  # fmt: skip
        write_csv(table.round(_DECIMALS), folder / "per_split.csv")
        differences = scoring.comparisons(
            results, resampling, params.system(SYSTEM).evaluate.headline
        )
        write_csv(differences.round(_DECIMALS), folder / "comparisons.csv")
        write_csv(found.round(_DECIMALS), folder / "localization.csv")
        write_csv(paper.paper_table(table, params, counts), folder / "paper_table.csv")
        joined.to_parquet(folder / "predictions.parquet", index=False, compression="zstd")
        _write_confusions(joined, list(fusions), classes, folder / "confusion")
        figures.accuracy_figure(metrics, list(fusions), folder / "accuracy.png")
        gallery.write_overlays(fusions, params, folders, joined, folder / "overlays")


def system_fusions(params: Params) -> dict[str, FusionParams]:
    """Its fusions, in the parameters' order."""
    fusions: dict[str, FusionParams] = params.system(SYSTEM).evaluate.fusions
    return fusions


def shown_maps(fusions: dict[str, FusionParams], params: Params) -> dict[str, Shown]:
    """The maps that the fusions' rows see, by the name they are scored under."""
    rows = [row for pair in fusions.values() for row in (pair.temporal, pair.spatial)]
    return localization.shown_maps(rows, params)


def _fused_results(
    fusions: dict[str, FusionParams], params: Params, folders: Folders, classes: list[str]
) -> list[SplitResult]:
    clips = read_table(folders["manifest"] / "clips.csv", ("clip_id", "label", "shard"))
    labels = dict(zip(clips["clip_id"], clips["label"], strict=True))
    read: dict[tuple[str, str], Scores] = {}
    results = []
    for name, pair in fusions.items():
        for split_id in params.splits.ids:
            for row in (pair.spatial, pair.temporal):
                if (row, split_id) not in read:
                    scores = read_scores(folders["predictions"] / f"{row}-{split_id}", classes)
                    check_split(scores, folders["splits"] / f"{split_id}.csv", labels, classes)
                    read[row, split_id] = scores
            first, second = read[pair.spatial, split_id], read[pair.temporal, split_id]
            check_joined(first, second, (pair.spatial, pair.temporal))
            if not (first.subsets == "test").any():
                raise InputError(f"expected test clips in split {split_id}, got none; see splits")
            results.append(
                scoring.fuse_split(
                    name, split_id, first, second, params.system(SYSTEM).evaluate.fusion_steps
                )
            )
    return results


def _status_counts(status: Path) -> dict[str, int]:
    table = read_table(status, ("clip_id", "status"))
    return {str(name): int(count) for name, count in table["status"].value_counts().items()}


def _clip_counts(results: list[SplitResult], counts: dict[str, int]) -> dict[str, float]:
    tested = {clip for r in results for clip in r.clip_ids[r.is_test].tolist()}
    return {
        "num_test_clips": len(tested),
        "num_quarantined": counts.get("quarantined", 0),
        "num_absent": counts.get("absent", 0),
    }


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else round(value, _DECIMALS)


def _write_confusions(
    joined: pd.DataFrame, fusions: list[str], classes: list[str], folder: Path
) -> None:
    """Pairs of (actual, predicted) of all splits' test clips: as tables, and as pictures."""
    index = {name: i for i, name in enumerate(classes)}
    test = joined[joined["subset"] == "test"]
    for fusion in fusions:
        matrices = {}
        for stream in STREAMS:
            own = test[(test["fusion"] == fusion) & (test["stream"] == stream)]
            pairs = pd.DataFrame({"actual": own["label"], "predicted": own["predicted"]})
            write_csv(pairs, folder / f"{fusion}-{stream}.csv")
            actual, predicted = (pairs[c].map(index).to_numpy(np.int64) for c in pairs)
            counts = classification.confusion_matrix(actual, predicted, len(classes))
            matrices[f"{fusion} · {stream}"] = counts
        figures.confusion_figure(matrices, classes, folder / f"{fusion}.png")
