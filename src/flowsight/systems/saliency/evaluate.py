"""The evaluation of networks over images: one row at a time, beside the row it was slimmed from.

The F-measure of the paper is that of the argmax map, averaged over the test images. What the field
reports beside it comes from the maps: the largest F over thresholds (of the curve averaged over
images), the mean absolute error, the structure-measure, precision and recall. What a network costs
is told in parameters and multiply-adds; times hang on the machine and stand in `docs/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flowsight.contract import Folders
from flowsight.datasets.images.pairs import Pair, load_pairs, read_mask
from flowsight.errors import InputError
from flowsight.files import atomic_dir, write_csv, write_json
from flowsight.metrics import bootstrap, saliency
from flowsight.metrics.bootstrap import Hits, Resampling
from flowsight.metrics.classification import Floats
from flowsight.params.config import Params
from flowsight.progress import track
from flowsight.systems.saliency import figures, paper
from flowsight.systems.saliency.maps import MAPS, PREDICTIONS, maps_of
from flowsight.systems.saliency.params import SYSTEM, Block
from flowsight.video import pack

COUNTS = ("tp", "fp", "fn", "tn")
METRICS = ("f_beta", "max_f", "mae", "s_measure", "precision", "recall")
COSTS = ("num_parameters", "multiply_adds")
_DECIMALS = 6


@dataclass(frozen=True, kw_only=True, eq=False)
class RowResult:
    """One row on one split's test images, by item id."""

    row: str
    split_id: str
    items: pd.DataFrame
    """item_id, tp, fp, fn, tn, and per image f_beta, precision, recall, mae, s_measure."""
    curves: Floats
    """(3, 256): mean precision, recall and F at each threshold."""
    cost: dict[str, int]


def evaluate(params: Params, folders: Folders, out: Path) -> None:
    """Write `results/saliency`: metrics.json, tables, curves and pictures.

    Args:
        params: all parameters; the rows of the system are evaluated.
        folders: `predictions`, of `<row>-<split>` as `predict` writes them; `items` and `raw`, see
            `datasets.images.pairs.load_pairs`.
        out: folder to replace.

    Raises:
        InputError: predictions or maps that are missing or of other images than the splits'.
    """
    block = params.system(SYSTEM)
    raw, items = folders["raw"], folders["items"]
    splits = {s: load_pairs(raw, items, s) for s in params.images.split_ids}
    results = [_read(name, s, folders, pairs) for s, pairs in splits.items() for name in block.rows]
    resampling = Resampling(
        num_samples=params.system(SYSTEM).evaluate.bootstrap_samples,
        confidence=params.system(SYSTEM).evaluate.confidence,
        seed=params.seed,
    )
    table = split_table(results)
    counts = _status_counts(items)
    metrics: dict[str, float] = flat_metrics(table, results, resampling)
    metrics |= {
        "num_test_images": len({i for r in results for i in r.items["item_id"]}),
        "num_quarantined": counts.get("quarantined", 0),
        "num_absent": counts.get("absent", 0),
    }
    with atomic_dir(out) as folder:
        write_json(
            {k: v if isinstance(v, int) else round(v, _DECIMALS) for k, v in metrics.items()},
            folder / "metrics.json",
        )
        write_csv(table.round(_DECIMALS), folder / "per_split.csv")
        gains = comparisons(results, block, resampling)
        write_csv(gains.round(_DECIMALS), folder / "comparisons.csv")
        write_csv(curve_table(results).round(_DECIMALS), folder / "curves.csv")
        write_csv(paper.paper_table(table, params, counts), folder / "paper_table.csv")
        joined = joined_items(results)
        joined.to_parquet(folder / "predictions.parquet", index=False, compression="zstd")
        figures.curve_figure(_mean_curves(results), folder / "curves.png")
        first = params.images.split_ids[0]
        figures.write_pictures(
            chosen(splits[first], block.evaluate.num_pictures),
            {name: folders["predictions"] / f"{name}-{first}" / MAPS for name in block.rows},
            folder / "pictures",
        )


def _status_counts(pairs: Path) -> dict[str, int]:
    table = pd.read_csv(pairs / "status.csv", dtype=str, keep_default_na=False)
    return {str(name): int(count) for name, count in table["status"].value_counts().items()}


def _read(name: str, split_id: str, folders: Folders, pairs: list[Pair]) -> RowResult:
    key = f"{name}-{split_id}"
    folder = folders["predictions"] / key
    counts = _read_counts(folder / PREDICTIONS, pairs)
    test = sorted((p for p in pairs if p.subset == "test"), key=lambda pair: pair.item_id)
    if not test:
        raise InputError(f"expected test images in split {split_id}, got none; see images")
    scores, curves = [], np.zeros((3, saliency.LEVELS))
    for pair, levels in track(list(maps_of(folder / MAPS, test)), f"scoring {key}"):
        mask = read_mask(pair.mask)
        if levels.shape != mask.shape:
            height, width = mask.shape
            raise InputError(
                f"expected a map of {width} x {height} px of {pair.item_id} in {folder / MAPS}, "
                "got another size; predict again"
            )
        scores.append(
            {
                "mae": saliency.mean_absolute_error(levels / 255, mask),
                "s_measure": saliency.s_measure(levels / 255, mask),
            }
        )
        tp, fp = saliency.threshold_counts(levels, mask)
        fn = int(mask.sum()) - tp
        curves += [saliency.precision(tp, fp), saliency.recall(tp, fn), saliency.f_beta(tp, fp, fn)]
    own = counts.loc[[pair.item_id for pair in test]].reset_index()
    tp, fp, fn = (own[c].to_numpy() for c in COUNTS[:3])
    own = own.assign(
        f_beta=saliency.f_beta(tp, fp, fn),
        precision=saliency.precision(tp, fp),
        recall=saliency.recall(tp, fn),
    )
    meta = pack.read_meta(folder / MAPS)
    return RowResult(
        row=name,
        split_id=split_id,
        items=pd.concat([own, pd.DataFrame(scores)], axis=1),
        curves=curves / len(test),
        cost={key: int(meta[key]) for key in COSTS},
    )


def _read_counts(path: Path, pairs: list[Pair]) -> pd.DataFrame:
    """Pixel counts by item, checked against the split."""
    if not path.is_file():
        raise InputError(
            f"expected predictions in {path}, found no such file; run `dvc repro` for its stage"
        )
    table = pd.read_parquet(path)
    expected = ["item_id", "subset", *COUNTS]
    if list(table.columns) != expected:
        raise InputError(
            f"expected the columns {', '.join(expected)} in {path}, got "
            f"{', '.join(table.columns)}; predict again"
        )
    wanted = {p.item_id: p.subset for p in pairs if p.subset != "train"}
    found = dict(zip(table["item_id"], table["subset"], strict=True))
    different = sorted(i for i in wanted.keys() | found.keys() if wanted.get(i) != found.get(i))
    if different or len(found) != len(table):
        raise InputError(
            f"expected predictions of the {len(wanted)} val and test images of the split, got "
            f"{len(table)} that differ in {', '.join(different[:3]) or 'repeated ones'} in {path}; "
            "run `dvc repro` to predict again"
        )
    return table.set_index("item_id")


def split_table(results: list[RowResult]) -> pd.DataFrame:
    """Per row and split the test numbers.

    Returns:
        Columns row, split_id, num_images, `METRICS`, pooled_f (F of all pixels together), `COSTS`.
    """
    rows = []
    for r in results:
        totals = r.items[list(COUNTS)].sum()
        rows.append(
            {
                "row": r.row,
                "split_id": r.split_id,
                "num_images": len(r.items),
                "f_beta": r.items["f_beta"].mean(),
                "max_f": r.curves[2].max(),
                **{m: r.items[m].mean() for m in ("mae", "s_measure", "precision", "recall")},
                "pooled_f": float(saliency.f_beta(totals["tp"], totals["fp"], totals["fn"])),
                **r.cost,
            }
        )
    return pd.DataFrame(rows)


def flat_metrics(
    table: pd.DataFrame, results: list[RowResult], resampling: Resampling
) -> dict[str, float]:
    """Means over splits as flat names: `<row>/<metric>`, `_std`, f_beta's interval, costs."""
    metrics: dict[str, float] = {}
    for name, own in table.groupby("row", sort=False):
        for metric in METRICS:
            metrics[f"{name}/{metric}"] = float(own[metric].mean())
            if len(own) > 1:
                metrics[f"{name}/{metric}_std"] = float(own[metric].std(ddof=1))
        for cost in COSTS:
            metrics[f"{name}/{cost}"] = int(own[cost].iloc[0])
        mine = [r for r in results if r.row == name]
        ends = bootstrap.interval(
            _hits(mine, [r.items["f_beta"].to_numpy() for r in mine], results), resampling
        )
        if ends:
            metrics[f"{name}/f_beta_low"], metrics[f"{name}/f_beta_high"] = ends
    return metrics


def comparisons(results: list[RowResult], block: Block, resampling: Resampling) -> pd.DataFrame:
    """What slimming changes: each row against the one it goes on from, paired image by image.

    Returns:
        Columns row, base, difference, low, high (of f_beta), parameters and multiply_adds as shares
        of the base's.
    """
    rows = []
    for name, row in block.rows.items():
        if row.start.init is None:
            continue
        own, base = ([r for r in results if r.row == n] for n in (name, row.start.init))
        gains = [
            (a.items["f_beta"] - b.items["f_beta"]).to_numpy()
            for a, b in zip(own, base, strict=True)
        ]
        low, high = bootstrap.interval(_hits(own, gains, results), resampling) or (np.nan, np.nan)
        shares = [own[0].cost[cost] / base[0].cost[cost] for cost in COSTS]
        rows.append(
            (name, row.start.init, float(np.mean([g.mean() for g in gains])), low, high, *shares)
        )
    names = ["row", "base", "difference", "low", "high", "parameters", "multiply_adds"]
    return pd.DataFrame(rows, columns=names)


def _hits(own: list[RowResult], values: list[Any], results: list[RowResult]) -> list[Hits]:
    names = sorted({item for r in results for item in r.items["item_id"]})
    index = {item: i for i, item in enumerate(names)}
    return [
        Hits(items=np.array([index[i] for i in r.items["item_id"]], np.int64), values=value)
        for r, value in zip(own, values, strict=True)
    ]


def _mean_curves(results: list[RowResult]) -> dict[str, Floats]:
    """Row -> (3, 256), the mean over its splits."""
    names = dict.fromkeys(r.row for r in results)
    return {n: np.mean([r.curves for r in results if r.row == n], axis=0) for n in names}


def curve_table(results: list[RowResult]) -> pd.DataFrame:
    """Columns row, threshold (0 ... 255: salient from there on), precision, recall, f_beta."""
    parts = [
        pd.DataFrame(
            {
                "row": name,
                "threshold": np.arange(saliency.LEVELS),
                "precision": curves[0],
                "recall": curves[1],
                "f_beta": curves[2],
            }
        )
        for name, curves in _mean_curves(results).items()
    ]
    return pd.concat(parts, ignore_index=True)


def joined_items(results: list[RowResult]) -> pd.DataFrame:
    """Every row, split and test image with its counts and scores."""
    parts = [r.items.assign(row=r.row, split_id=r.split_id) for r in results]
    table = pd.concat(parts, ignore_index=True)
    first = ["row", "split_id", "item_id", "subset"]
    return table[first + [c for c in table.columns if c not in first]]


def chosen(pairs: list[Pair], count: int) -> list[Pair]:
    """Test images to show, evenly spread over their names, chosen without looking at the maps."""
    test = sorted((p for p in pairs if p.subset == "test"), key=lambda pair: pair.item_id)
    places = np.unique(np.linspace(0, len(test) - 1, min(count, len(test))).round().astype(int))
    return [test[i] for i in places] if count else []
