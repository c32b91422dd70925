"""What is written beside a registered model: origin, parameters, numbers, items, predictions."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsight import contract
from flowsight.errors import InputError
from flowsight.params.config import Params
from flowsight.pipeline import dvc_yaml
from flowsight.registry import locks
from flowsight.registry import subject as subjects
from flowsight.registry.candidate import Candidate, stage_tag
from flowsight.registry.subject import Kind, Subject

if TYPE_CHECKING:
    import pandas as pd

_FOR_PEOPLE = (".png", ".csv", ".json")
SERVING_NEEDS = (
    "mlflow",
    "numpy",
    "opencv-contrib-python-headless",
    "pandas",
    "pillow",
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
    split, chosen = bundle["split"], contract.find(system).selection(bundle)
    results, subject = root / "results" / system, subjects.of_system(system)
    kind, per_split = subject.KIND, subject.per_split(results)
    return Candidate(
        name=system,
        checkpoint=_checkpoint_hash(bundle),
        tags={
            **_origin(system, subject, params, bundle, root, commit),
            **subject.quality(root, params),
            "paper_comparable": _comparable(results),
            **_numbers(per_split, chosen, split, kind.tagged),
            "size_bytes": str(sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())),
        },
        params={name: v for name, v in asdict(params).items() if name != "instances"},
        metrics=_metrics(results / "metrics.json", per_split, list(chosen), kind),
        items=subject.items(root, params, split),
        scores=subject.scores(root, bundle),
        evaluation=_evaluation(results),
    )


def _checkpoint_hash(bundle: Mapping[str, Any]) -> str:
    hashes = {name: entry["md5"] for name, entry in bundle["files"].items()}
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()[:32]


def _origin(
    system: str,
    subject: Subject,
    params: Params,
    bundle: Mapping[str, Any],
    root: Path,
    commit: str,
) -> dict[str, str]:
    """Where it came from: repository, commit, DVC's hashes, stage hashes."""
    data, split, lock = bundle["dataset"], bundle["split"], locks.read(root)
    stage = f"evaluate@{system}"
    known = locks.outs(lock)
    tags = {
        "repository": locks.repository_id(root),
        "git_commit": commit,
        "system": system,
        "subject": contract.find(system).SUBJECT,
        "dataset": data,
        "data_path": f"data/raw/{data}",
        "recipe": params.recipe,
        "seed": str(params.seed),
        "split": split,
        **contract.find(system).tags(bundle),
        **{tag: known[path] for tag, path in subject.inputs(params).items()},
        "stage": stage,
        "stage_hash": dvc_yaml.stage_key(stage, root),
    }
    raw = _raw_hash(root, data, known)
    if raw is not None:
        tags["dvc.data"] = raw
    for made in dvc_yaml.load(root).values():
        if any(out == str(Path(e["path"]).parent) for e in bundle["files"].values()
               for out in made.outs):  # fmt: skip
            # the tag that trainings carry in MLflow
            tags[stage_tag(made.name)] = dvc_yaml.stage_key(made.name, root)
    for name, entry in bundle["files"].items():
        tags[f"dvc.checkpoint.{name}"] = entry["stage_md5"]
        tags[f"md5.{name}"] = entry["md5"]
    return tags


def _raw_hash(root: Path, data: str, known: Mapping[str, str]) -> str | None:
    """Of a data set that a stage makes, or that a `.dvc` file tracks."""
    raw, file = f"data/raw/{data}", root / f"data/raw/{data}.dvc"
    if raw in known:
        return known[raw]
    return dvc_yaml.read_yaml(file)["outs"][0].get("md5") if file.is_file() else None


def _comparable(results: Path) -> str:
    """How many of our rows of the paper's table can be compared with it, and why the others not."""
    import pandas as pd

    table = pd.read_csv(results / "paper_table.csv")
    ours = table[table["ours"].notna()]
    why = sorted(set(ours.loc[~ours["comparable"].astype(bool), "why"].dropna()))
    said = f"; {'; '.join(why)}" if why else ""
    return f"{int(ours['comparable'].astype(bool).sum())} of {len(ours)} rows{said}"


def _selected(table: pd.DataFrame, chosen: Mapping[str, str]) -> pd.DataFrame:
    """The rows of what is served: each column has the chosen value."""
    for column, value in chosen.items():
        table = table[table[column] == value]
    return table


def _numbers(
    per_split: pd.DataFrame, chosen: Mapping[str, str], split: str, tagged: Sequence[str]
) -> dict[str, str]:
    """Numbers of what is served, on the split that it is served for and on the others."""
    tags = {}
    for _, row in _selected(per_split, chosen).iterrows():
        for metric in tagged:
            tags[f"{metric}.split_{row['split_id']}"] = f"{row[metric]:.6f}"
            if row["split_id"] == split:
                tags[metric] = f"{row[metric]:.6f}"
    if tagged[0] not in tags:
        named = ", ".join(f"{column} {value}" for column, value in chosen.items())
        raise InputError(f"expected {named} of split {split} in the results, found none")
    return tags


def _metrics(
    path: Path, per_split: pd.DataFrame, columns: Sequence[str], kind: Kind
) -> dict[str, float]:
    """Means over splits as evaluation names them, and each split's own numbers beside them."""
    metrics = {name: float(value) for name, value in json.loads(path.read_text()).items()}
    for _, row in per_split.iterrows():
        key = "/".join(str(row[column]) for column in columns)
        for metric in (name for name in kind.kept if name in per_split):
            metrics[f"{key}/{metric}/split_{row['split_id']}"] = float(row[metric])
    bad = [name for name, value in metrics.items() if not math.isfinite(value)]
    if bad:
        raise InputError(
            f"expected finite metrics in {path.parent}, got NaN or infinity for "
            f"{', '.join(bad[:4])}; such a model is not registered"
        )
    return metrics


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
