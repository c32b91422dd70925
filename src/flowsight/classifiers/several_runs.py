"""Results of several runs over the same test clips, of other seeds say, as one: no torch.

A clip's scores of all runs are averaged first, so that the interval's draws are of clips and a
clip's runs stay together; how far the runs lie apart is told by itself (`std_runs`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from flowsight.classifiers.localization import MEASURES
from flowsight.errors import InputError
from flowsight.metrics import bootstrap
from flowsight.metrics.bootstrap import Hits, Resampling

_KEY = ["method", "split_id", "clip_id"]
_MAPS = "localization.csv"
_OF_MAPS = {"masks": "first", **dict.fromkeys(MEASURES, "mean")}
_NUMBERS = ("mean", "low", "high", "std_splits", "std_runs", "baseline", "difference")


@dataclass(frozen=True, kw_only=True, eq=False)
class Runs:
    """Test clips of all runs, each with its share of runs that were right."""

    names: tuple[str, ...]
    hits: pd.DataFrame
    """Columns method (`<fusion>/<stream>` or a row), split_id, clip_id; one of 0 and 1 a run."""

    @property
    def methods(self) -> list[str]:
        """In the order of the first run."""
        return list(dict.fromkeys(self.hits["method"]))


def read(folders: Mapping[str, Path]) -> Runs:
    """Join the predictions of runs.

    Args:
        folders: name of each run -> its `results/<system>`.

    Raises:
        InputError: no predictions of clips there, or of other clips, splits or methods than in the
            first one.
    """
    joined: pd.DataFrame | None = None
    for name, folder in folders.items():
        found = _hits(folder / "predictions.parquet").rename(columns={"hit": name})
        if joined is None:
            joined = found
            continue
        one = joined.merge(found, on=_KEY, how="outer", indicator=True, sort=False)
        lacking = one[one["_merge"] != "both"]
        if len(lacking):
            first, where = lacking.iloc[0], {"left_only": folder, "right_only": "the runs before"}
            raise InputError(
                f"expected the same methods, splits and clips in every run, got {len(lacking)} "
                f"that are not in all; {first['method']} on {first['clip_id']} of split "
                f"{first['split_id']} is missing in {where[str(first['_merge'])]}"
            )
        joined = joined.merge(found, on=_KEY, sort=False)
    if joined is None:
        raise InputError("expected at least one folder of results, got none")
    taken = {*_KEY, *_NUMBERS, *joined["split_id"]} & set(folders)
    if taken:
        raise InputError(f"expected runs with names of their own, got {min(taken)}, which is taken")
    return Runs(names=tuple(folders), hits=joined)


def _hits(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"expected the results of a run in {path}, found no such file")
    table = pd.read_parquet(path)
    if "clip_id" not in table or "predicted" not in table:
        raise InputError(f"expected predictions of clips' classes, got others in {path}")
    table = table[table["subset"] == "test"]
    method = table["fusion"] + "/" + table["stream"] if "fusion" in table else table["row"]
    hit = (table["label"] == table["predicted"]).astype(np.float64)
    return table[["split_id", "clip_id"]].assign(method=method, hit=hit)[[*_KEY, "hit"]]


def accuracies(runs: Runs, resampling: Resampling) -> pd.DataFrame:
    """Each method's top-1 accuracy.

    Returns:
        Columns method, one a split (mean over runs), mean (over splits and runs), low, high (of the
        clip bootstrap), std_splits, std_runs (standard deviations over splits and over the runs'
        means; NaN where there is one), and one a run. Shares in [0, 1].
    """
    rows = []
    for method in runs.methods:
        table = runs.hits[runs.hits["method"] == method]
        per_split = table.groupby("split_id", sort=False)[list(runs.names)].mean()
        of_runs, of_splits = per_split.mean(axis=0), per_split.mean(axis=1)
        low, high = _interval(table, table[list(runs.names)].mean(axis=1), resampling)
        row = {"method": method, **of_splits.to_dict(), "mean": of_splits.mean()}
        row |= {"low": low, "high": high}
        row |= {"std_splits": of_splits.std(ddof=1), "std_runs": of_runs.std(ddof=1)}
        rows.append(row | of_runs.to_dict())
    return pd.DataFrame(rows)


def differences(
    runs: Runs, pairs: Sequence[tuple[str, str]], resampling: Resampling
) -> pd.DataFrame:
    """Paired differences of methods on the same clips, splits and runs.

    Returns:
        Columns method, baseline, difference, low, high, and one a run. Shares of clips.
    """
    rows = []
    names = list(runs.names)
    for pair in pairs:
        own, other = (
            runs.hits[runs.hits["method"] == method].set_index(["split_id", "clip_id"])[names]
            for method in pair
        )
        gain = (own - other.loc[own.index]).reset_index()
        per_run = gain.groupby("split_id", sort=False)[names].mean().mean(axis=0)
        low, high = _interval(gain, gain[names].mean(axis=1), resampling)
        row = {"method": pair[0], "baseline": pair[1], "difference": per_run.mean()}
        rows.append(row | {"low": low, "high": high} | per_run.to_dict())
    return pd.DataFrame(rows)


def localizations(folders: Mapping[str, Path]) -> pd.DataFrame | None:
    """How well the maps of test clips find the actor, over runs and splits.

    Args:
        folders: as for `read`.

    Returns:
        Columns row (a row that makes maps, or a control row that sees them), masks (who says where
        the actor is), pointing_game, energy_in_mask, iou, chance (means over splits and runs), and
        one a run, its pointing game. Shares in [0, 1]. None where no run has scored maps.

    Raises:
        InputError: some runs have scored maps, others have not, or those of other rows.
    """
    paths = {name: folder / _MAPS for name, folder in folders.items()}
    if not any(path.is_file() for path in paths.values()):
        return None
    means = {name: _map_scores(path) for name, path in paths.items()}
    first = next(iter(means.values()))
    for name, table in means.items():
        if set(table.index) != set(first.index):
            differ = min(set(table.index) ^ set(first.index))
            raise InputError(
                f"expected maps of the same rows in every run, got {differ} in some of them; look "
                f"at {paths[name]}"
            )
    joined = pd.concat(means).groupby(level=1, sort=False).agg(_OF_MAPS)
    of_runs = {name: table["pointing_game"] for name, table in means.items()}
    return joined.assign(**of_runs).rename_axis("row").reset_index()


def _map_scores(path: Path) -> pd.DataFrame:
    """Measures of the test clips by row, means over splits."""
    if not path.is_file():
        raise InputError(f"expected the map scores of a run in {path}, found no such file")
    table = pd.read_csv(path, dtype={"masks": str})  # "true" is a word here
    table = table[table["subset"] == "test"]
    return table.groupby("row", sort=False).agg(_OF_MAPS)


def _interval(
    table: pd.DataFrame, values: pd.Series, resampling: Resampling
) -> tuple[float, float]:
    """Ends of the clip bootstrap of the mean over splits; NaN where no draws are asked for."""
    index, _ = pd.factorize(table["clip_id"], sort=True)
    splits = [
        Hits(items=index[places].astype(np.int64), values=values.to_numpy()[places])
        for places in table.reset_index(drop=True).groupby("split_id", sort=False).indices.values()
    ]
    return bootstrap.interval(splits, resampling) or (np.nan, np.nan)


def pairs(runs: Runs, fusions: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Methods to compare: each stream of the first fusion with the same of the second.

    Args:
        runs: whose methods.
        fusions: names of fusions or rows; none: each with the first that there is.

    Raises:
        InputError: a name that is not there.
    """
    groups: dict[str, list[str]] = {}
    for method in runs.methods:
        groups.setdefault(method.rpartition("/")[0] or method, []).append(method)
    names = list(groups)
    wanted = list(fusions) or [(name, names[0]) for name in names[1:]]
    for name in {name for pair in wanted for name in pair} - set(names):
        raise InputError(f"expected one of {', '.join(names)}, got {name}")
    return [pair for one, other in wanted for pair in zip(groups[one], groups[other], strict=True)]


def markdown(table: pd.DataFrame) -> str:
    """A table of shares in per cent, one decimal; NaN as a dash."""
    lines = ["| " + " | ".join(map(str, table.columns)) + " |"]
    lines.append("|" + "---|" * len(table.columns))
    for _, row in table.iterrows():
        cells = [v if isinstance(v, str) else "-" if np.isnan(v) else f"{100 * v:.1f}" for v in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
