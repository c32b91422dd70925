"""What is written beside a registered model: origin, parameters, numbers, clips, predictions."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsight import pipeline
from flowsight.config import Params
from flowsight.errors import InputError
from flowsight.registry import locks
from flowsight.registry.candidate import Candidate, stage_tag
from flowsight.serving import systems

if TYPE_CHECKING:
    import pandas as pd

_FOR_PEOPLE = (".png", ".csv", ".json")
_METRICS = ("top1", "clip_top1", "top5", "mean_class", "log_loss")
"""Columns of `per_split.csv` that are kept, where a system has them."""
_TAGGED = ("top1", "top5", "mean_class")
"""Those that a version is marked with, and that the gate looks at."""
GATES = ("manifest", "clips", "splits")
SERVING_NEEDS = (
    "mlflow",
    "numpy",
    "opencv-contrib-python-headless",
    "pandas",
    "psutil",
    "pyarrow",
    "ruamel-yaml",
    "scipy",
    "torch",
    "torchvision",
    "typer",
)
"""Packages that the registered model imports, by their names in `requirements.lock`."""


def candidate(
    system: str,
    params: Params,
    bundle: Mapping[str, Any],
    root: Path,
    commit: str,
    folder: Path,
) -> Candidate:
    """Gather what the registry keeps of a model.

    Args:
        system: its name.
        params: of the commit.
        bundle: what `write_bundle` returned.
        root: the repository, checked.
        commit: its HEAD.
        folder: the bundle.

    Raises:
        InputError: a table lacks something, or a metric is not finite.
    """
    import pandas as pd

    split, chosen = bundle["split"], systems.find(system).selection(bundle)
    results = root / "results" / system
    per_split = pd.read_csv(results / "per_split.csv", dtype={"split_id": str})
    joined = pd.read_parquet(results / "predictions.parquet")
    return Candidate(
        name=system,
        checkpoint=_checkpoint_hash(bundle),
        tags={
            **_origin(system, params, bundle, root, commit),
            **_quality(root, params, results),
            **_numbers(per_split, chosen, split),
            "size_bytes": str(sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())),
        },
        params={name: value for name, value in asdict(params).items() if name != "instances"},
        metrics=_metrics(results / "metrics.json", per_split, list(chosen)),
        clips=_clips(root, params, split),
        scores=_scores(joined, chosen, split),
        evaluation=_evaluation(results),
    )


def _checkpoint_hash(bundle: Mapping[str, Any]) -> str:
    hashes = {name: entry["md5"] for name, entry in bundle["files"].items()}
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()[:32]


def _origin(
    system: str, params: Params, bundle: Mapping[str, Any], root: Path, commit: str
) -> dict[str, str]:
    """Where it came from: repository, commit, DVC's hashes, stage hashes."""
    data, split, lock = params.dataset.name, bundle["split"], locks.read(root)
    known = locks.outs(lock)
    tags = {
        "repository": locks.repository_id(root),
        "git_commit": commit,
        "system": system,
        "dataset": data,
        "data_path": f"data/raw/{data}",
        "recipe": params.recipe,
        "seed": str(params.seed),
        "split": split,
        **systems.find(system).tags(bundle),
        "dvc.manifest": known[f"data/manifests/{data}"],
        "dvc.splits": known[f"data/splits/{data}"],
        "stage": f"evaluate@{system}",
        "stage_hash": pipeline.stage_key(f"evaluate@{system}", root),
    }
    raw = _raw_hash(root, data, known)
    if raw is not None:
        tags["dvc.data"] = raw
    for stage in pipeline.load(root).values():
        if any(out == str(Path(e["path"]).parent) for e in bundle["files"].values()
               for out in stage.outs):  # fmt: skip
            # the tag that trainings carry in MLflow
            tags[stage_tag(stage.name)] = pipeline.stage_key(stage.name, root)
    for name, entry in bundle["files"].items():
        tags[f"dvc.checkpoint.{name}"] = entry["stage_md5"]
        tags[f"md5.{name}"] = entry["md5"]
    return tags


def _raw_hash(root: Path, data: str, known: Mapping[str, str]) -> str | None:
    """Of a data set that a stage makes, or that a `.dvc` file tracks."""
    raw, file = f"data/raw/{data}", root / f"data/raw/{data}.dvc"
    if raw in known:
        return known[raw]
    return pipeline.read_yaml(file)["outs"][0].get("md5") if file.is_file() else None


def _quality(root: Path, params: Params, results: Path) -> dict[str, str]:
    """The data gate, the share of clips in quarantine, and whether the paper can be compared."""
    import pandas as pd

    data = params.dataset.name
    base = root / "data/validation" / data
    passed = [gate for gate in GATES if (base / gate / "passed.json").is_file()]
    counts = pd.read_csv(base / "clips" / "status.csv")["status"].value_counts()
    listed = int(counts.sum())
    table = pd.read_csv(results / "paper_table.csv")
    ours = table[table["ours"].notna()]
    why = sorted(set(ours.loc[~ours["comparable"], "why"].dropna()))
    said = f"; {'; '.join(why)}" if why else ""
    return {
        "data_gate": "passed" if len(passed) == len(GATES) else f"only {', '.join(passed)}",
        "quarantine_share": f"{counts.get('quarantined', 0) / max(listed, 1):.6f}",
        "num_clips": str(listed),
        "paper_comparable": f"{int(ours['comparable'].sum())} of {len(ours)} rows{said}",
    }


def _selected(table: pd.DataFrame, chosen: Mapping[str, str]) -> pd.DataFrame:
    """The rows of what is served: each column has the chosen value."""
    for column, value in chosen.items():
        table = table[table[column] == value]
    return table


def _numbers(per_split: pd.DataFrame, chosen: Mapping[str, str], split: str) -> dict[str, str]:
    """Numbers of what is served, on the split that it is served for and on the others."""
    tags = {}
    for _, row in _selected(per_split, chosen).iterrows():
        for metric in _TAGGED:
            tags[f"{metric}.split_{row['split_id']}"] = f"{row[metric]:.6f}"
            if row["split_id"] == split:
                tags[metric] = f"{row[metric]:.6f}"
    if "top1" not in tags:
        raise InputError(f"expected {_named(chosen)} of split {split} in per_split.csv, found none")
    return tags


def _named(chosen: Mapping[str, str]) -> str:
    return ", ".join(f"{column} {value}" for column, value in chosen.items())


def _metrics(path: Path, per_split: pd.DataFrame, columns: Sequence[str]) -> dict[str, float]:
    """Means over splits as evaluation names them, and each split's own numbers beside them."""
    metrics = {name: float(value) for name, value in json.loads(path.read_text()).items()}
    for _, row in per_split.iterrows():
        key = "/".join(str(row[column]) for column in columns)
        for metric in (name for name in _METRICS if name in per_split):
            metrics[f"{key}/{metric}/split_{row['split_id']}"] = float(row[metric])
    bad = [name for name, value in metrics.items() if not math.isfinite(value)]
    if bad:
        raise InputError(
            f"expected finite metrics in {path.parent}, got NaN or infinity for "
            f"{', '.join(bad[:4])}; such a model is not registered"
        )
    return metrics


def _clips(root: Path, params: Params, split: str) -> pd.DataFrame:
    import pandas as pd

    data = params.dataset.name
    subsets = pd.read_csv(root / f"data/splits/{data}/{split}.csv", dtype=str)
    listed = pd.read_csv(root / f"data/manifests/{data}/clips.csv", dtype=str)
    columns = ["clip_id", "label", "path", "sha256"]
    return subsets.merge(listed[columns], on="clip_id", how="left", validate="one_to_one")


def _scores(joined: pd.DataFrame, chosen: Mapping[str, str], split: str) -> pd.DataFrame:
    own = _selected(joined, chosen)
    own = own[(own["split_id"].astype(str) == split) & (own["subset"] == "test")]
    if own.empty:
        raise InputError(
            f"expected test predictions of {_named(chosen)}, split {split} in "
            "predictions.parquet, found none"
        )
    columns = [c for c in own.columns if c.startswith("prob_")]
    return own[["clip_id", "label", "predicted", *columns]].reset_index(drop=True)


def _evaluation(results: Path) -> dict[str, Path]:
    """Confusion matrices, attention overlays, other figures, tables: what a person looks at."""
    found = sorted(path for path in results.rglob("*") if path.suffix in _FOR_PEOPLE)
    return {path.relative_to(results).as_posix(): path for path in found}


def requirements(path: Path) -> list[str]:
    """Exact requirements of a served model, from the project's lock.

    Raises:
        InputError: the lock lacks one.
    """
    if not path.is_file():
        raise InputError(f"expected the locked packages in {path}, found no such file")
    locked = dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", path.read_text(), re.MULTILINE))
    lacking = [name for name in SERVING_NEEDS if name not in locked]
    if lacking:
        raise InputError(
            f"expected {', '.join(lacking)} in {path}, found none; run scripts/lock.sh"
        )
    return [f"{name}=={locked[name]}" for name in SERVING_NEEDS]
