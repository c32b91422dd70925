"""Faces with a class: right or wrong. See `Subject` for what is here.

A face counts as learnt from by its name, by its file's content, or by its group (a person's).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsight.errors import InputError
from flowsight.registry import model_answers
from flowsight.registry.subject import Kind
from flowsight.systems.expression_recognition import serve
from flowsight.systems.expression_recognition.params import SYSTEM

if TYPE_CHECKING:
    import pandas as pd

    from flowsight.params.config import Params
    from flowsight.registry.evidence import Evidence
    from flowsight.registry.store import Registry

KIND = Kind(
    measure="accuracy",
    title="accuracy",
    items="images",
    units="images",
    tagged=("accuracy", "macro_f1", "accuracy_without_duplicates"),
    kept=("accuracy", "macro_f1", "mean_class", "accuracy_without_duplicates", "log_loss"),
)


def reads(system: str, params: Params) -> list[str]:
    """Checkpoints, results and the tables of the pictures."""
    block = params.system(SYSTEM)
    rows = [f"{row}-{split}" for row in block.rows for split in block.data.split_ids]
    name = block.data.name
    return [
        *(f"checkpoints/{name}/{row}" for row in rows),
        f"results/{system}",
        _items(params).as_posix(),
    ]


def _items(params: Params) -> Path:
    return Path("data/items", SYSTEM, params.system(SYSTEM).data.name)


def raw(params: Params) -> list[str]:
    """The pictures, for a version that is asked anew."""
    return [f"data/raw/{params.system(SYSTEM).data.name}"]


def inputs(params: Params) -> dict[str, str]:
    """Pictures and splits lie in one folder."""
    items = _items(params).as_posix()
    return {"dvc.manifest": items, "dvc.splits": items}


def quality(root: Path, params: Params) -> dict[str, str]:
    """The stage `items` looks at every picture; its limit is checked here once more."""
    import pandas as pd

    data = params.system(SYSTEM).data
    path = root / _items(params) / "status.csv"
    status = pd.read_csv(path, dtype=str, keep_default_na=False)
    share = float((status["status"] == "quarantined").mean())
    return {
        "data_gate": "passed" if share <= data.max_quarantined else f"{share:.1%} refused",
        "quarantine_share": f"{share:.6f}",
        "num_images": str(len(status)),
        "num_duplicates": str(int((status["duplicate_of"] != "").sum())),
    }


def per_split(results: Path) -> pd.DataFrame:
    """`per_split.csv` as the evaluation wrote it."""
    import pandas as pd

    return pd.read_csv(results / "per_split.csv", dtype={"split_id": str})


def items(root: Path, params: Params, split: str) -> pd.DataFrame:
    """Pictures with their hashes, classes and groups."""
    import pandas as pd

    folder = root / _items(params)
    subsets = pd.read_csv(folder / f"splits/{split}.csv", dtype=str, keep_default_na=False)
    listed = pd.read_csv(folder / "items.csv", dtype=str, keep_default_na=False)
    table = subsets.merge(listed, on="item_id", how="left", validate="one_to_one")
    table = table.rename(columns={"image": "path"})
    return table[["item_id", "subset", "path", "sha256", "label", "group"]]


def scores(root: Path, bundle: Mapping[str, Any]) -> pd.DataFrame:
    """Test pictures of `predictions.parquet`."""
    import pandas as pd

    row, split = bundle["row"], bundle["split"]
    table = pd.read_parquet(root / "results" / bundle["system"] / "predictions.parquet")
    table = table[(table["row"] == row) & (table["split_id"].astype(str) == split)]
    if table.empty:
        raise InputError(
            f"expected test predictions of row {row}, split {split} in predictions.parquet, found "
            "none"
        )
    table = table.rename(columns={"hit": "score"}).reset_index(drop=True)
    probs = [column for column in table.columns if column.startswith("prob_")]
    return table[["item_id", "score", "label", "predicted", *probs]]


def anew(
    registry: Registry, model: Evidence, other: Evidence, items: pd.DataFrame, root: Path
) -> pd.DataFrame:
    """The expressions that the model finds, against the true ones."""
    base = root / other.tags.get("data_path", "data/raw")
    for row in items.to_dict("records"):
        model_answers.check_file(
            base / row["path"], row["sha256"], row["item_id"], model, len(items)
        )
    names = [str(path) for path in items["path"]]
    found = model_answers.ask(registry, model, base, column=serve.INPUT, names=names, field="label")
    hits = [float(str(a) == str(b)) for a, b in zip(found, items["label"], strict=True)]
    return items[["item_id"]].assign(score=hits)
