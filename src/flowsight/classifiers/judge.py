"""Clips with a class: right or wrong. See `Subject` for what is here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsight import contract
from flowsight.errors import InputError
from flowsight.params.config import Params
from flowsight.registry import model_answers
from flowsight.registry.subject import Kind

if TYPE_CHECKING:
    import pandas as pd

    from flowsight.registry.evidence import Evidence
    from flowsight.registry.store import Registry

KIND = Kind(
    measure="accuracy",
    title="accuracy",
    items="clips",
    units="clips",
    tagged=("top1", "top5", "mean_class"),
    kept=("top1", "clip_top1", "top5", "mean_class", "log_loss"),
)
GATES = ("manifest", "clips", "splits")


def reads(system: str, params: Params) -> list[str]:
    """Checkpoints, results, splits, manifest and the three validations."""
    data = params.dataset.name
    own = params.system(system).rows
    names = [name for name, row in own.items() if row.start.explains is None]
    maps = {row.start.maps for row in own.values() if row.start.maps}
    names += [f"attention-{name}" for name in own if name in maps]
    return [
        *(f"checkpoints/{data}/{name}-{split}" for name in names for split in params.splits.ids),
        f"results/{system}",
        f"data/splits/{data}",
        f"data/manifests/{data}",
        *(f"data/validation/{data}/{gate}" for gate in GATES),
    ]


def raw(params: Params) -> list[str]:
    """Nothing: the manifest has the videos' hashes."""
    return []


def inputs(params: Params) -> dict[str, str]:
    """Manifest and splits."""
    data = params.dataset.name
    return {"dvc.manifest": f"data/manifests/{data}", "dvc.splits": f"data/splits/{data}"}


def quality(root: Path, params: Params) -> dict[str, str]:
    """Which of the three validations passed, and the share of clips in quarantine."""
    import pandas as pd

    base = root / "data/validation" / params.dataset.name
    passed = [gate for gate in GATES if (base / gate / "passed.json").is_file()]
    counts = pd.read_csv(base / "clips" / "status.csv")["status"].value_counts()
    listed = int(counts.sum())
    return {
        "data_gate": "passed" if len(passed) == len(GATES) else f"only {', '.join(passed)}",
        "quarantine_share": f"{counts.get('quarantined', 0) / max(listed, 1):.6f}",
        "num_clips": str(listed),
    }


def per_split(results: Path) -> pd.DataFrame:
    """`per_split.csv` as the evaluation wrote it."""
    import pandas as pd

    return pd.read_csv(results / "per_split.csv", dtype={"split_id": str})


def items(root: Path, params: Params, split: str) -> pd.DataFrame:
    """Clips with label and the video's hash."""
    import pandas as pd

    data = params.dataset.name
    subsets = pd.read_csv(root / f"data/splits/{data}/{split}.csv", dtype=str)
    listed = pd.read_csv(root / f"data/manifests/{data}/clips.csv", dtype=str)
    columns = ["clip_id", "label", "path", "sha256"]
    joined = subsets.merge(listed[columns], on="clip_id", how="left", validate="one_to_one")
    return joined.rename(columns={"clip_id": "item_id"})


def scores(root: Path, bundle: Mapping[str, Any]) -> pd.DataFrame:
    """Test clips of `predictions.parquet`, 1.0 where the class is right."""
    import pandas as pd

    system, split = bundle["system"], bundle["split"]
    own = pd.read_parquet(root / "results" / system / "predictions.parquet")
    chosen = contract.find(system).selection(bundle)
    for column, value in chosen.items():
        own = own[own[column] == value]
    own = own[(own["split_id"].astype(str) == split) & (own["subset"] == "test")]
    if own.empty:
        said = ", ".join(f"{column} {value}" for column, value in chosen.items())
        raise InputError(
            f"expected test predictions of {said}, split {split} in predictions.parquet, found none"
        )
    columns = [c for c in own.columns if c.startswith("prob_")]
    found = own[["clip_id", "label", "predicted", *columns]].rename(columns={"clip_id": "item_id"})
    return with_score(found).reset_index(drop=True)


def with_score(table: pd.DataFrame) -> pd.DataFrame:
    """A table of label and predicted with the column score."""
    return table.assign(score=(table["predicted"] == table["label"]).astype(float))


def anew(
    registry: Registry, model: Evidence, other: Evidence, items: pd.DataFrame, root: Path
) -> pd.DataFrame:
    """The classes that the model says."""
    predicted = model_answers.score(registry, model, other, items, root)
    return with_score(items.assign(predicted=predicted))[["item_id", "score"]]
