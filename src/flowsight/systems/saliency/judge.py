"""Images with a mask: F-measure (beta^2 = 0.3) of the argmax map. See `Subject` for what is here.

An image counts as learnt from by its name or by its file's content; the same picture saved anew is
not found. Data sets of salient objects name no groups of images that belong together.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsight import files
from flowsight.errors import InputError
from flowsight.params.config import Params
from flowsight.registry import model_answers
from flowsight.registry.subject import Kind
from flowsight.systems.saliency import serve
from flowsight.systems.saliency.params import SYSTEM

if TYPE_CHECKING:
    import pandas as pd

    from flowsight.registry.evidence import Evidence
    from flowsight.registry.store import Registry

KIND = Kind(
    measure="f_beta",
    title="F-measure",
    items="images",
    units="images",
    tagged=("f_beta", "max_f", "mae", "s_measure"),
    kept=("f_beta", "max_f", "mae", "s_measure", "precision", "recall", "pooled_f"),
)


def reads(system: str, params: Params) -> list[str]:
    """Checkpoints, results and the pairs with their splits."""
    block = params.system(SYSTEM)
    rows = [f"{row}-{split}" for row in block.rows for split in params.images.split_ids]
    return [
        *(f"checkpoints/{params.images.name}/{row}" for row in rows),
        f"results/{system}",
        _items(params).as_posix(),
    ]


def _items(params: Params) -> Path:
    return Path("data/items", SYSTEM, params.images.name)


def raw(params: Params) -> list[str]:
    """The images, for their hashes."""
    return [f"data/raw/{params.images.name}"]


def inputs(params: Params) -> dict[str, str]:
    """Pairs and splits lie in one folder."""
    pairs = _items(params).as_posix()
    return {"dvc.manifest": pairs, "dvc.splits": pairs}


def quality(root: Path, params: Params) -> dict[str, str]:
    """The stage `items` looks at every image; its limit is checked here once more."""
    import pandas as pd

    status = pd.read_csv(root / _items(params) / "status.csv", dtype=str)["status"]
    looked_at = int((status != "absent").sum())
    share = int((status == "quarantined").sum()) / max(looked_at, 1)
    within = share <= params.images.max_quarantined
    return {
        "data_gate": "passed" if within else f"{share:.1%} of the pairs refused",
        "quarantine_share": f"{share:.6f}",
        "num_images": str(looked_at),
    }


def per_split(results: Path) -> pd.DataFrame:
    """`per_split.csv` as the evaluation wrote it."""
    import pandas as pd

    return pd.read_csv(results / "per_split.csv", dtype={"split_id": str})


def items(root: Path, params: Params, split: str) -> pd.DataFrame:
    """Pairs with the hashes of image and mask."""
    import pandas as pd

    pairs, base = root / _items(params), root / "data/raw" / params.images.name
    subsets = pd.read_csv(pairs / f"splits/{split}.csv", dtype=str)
    listed = pd.read_csv(pairs / "items.csv", dtype=str)
    table = subsets.merge(listed, on="item_id", how="left", validate="one_to_one")
    table = table.rename(columns={"image": "path", "mask": "truth"})
    return table.assign(
        sha256=[_hash(base / path) for path in table["path"]],
        truth_sha256=[_hash(base / path) for path in table["truth"]],
    )[["item_id", "subset", "path", "sha256", "truth", "truth_sha256", "upright"]]


def _hash(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"expected {path}, found no such file; bring it with `dvc pull`")
    return files.sha256(path)


def scores(root: Path, bundle: Mapping[str, Any]) -> pd.DataFrame:
    """Test images of `predictions.parquet`."""
    import pandas as pd

    row, split = bundle["row"], bundle["split"]
    own = pd.read_parquet(root / "results" / bundle["system"] / "predictions.parquet")
    own = own[(own["row"] == row) & (own["split_id"].astype(str) == split)]
    own = own[own["subset"] == "test"].reset_index(drop=True)
    if own.empty:
        raise InputError(
            f"expected test predictions of row {row}, split {split} in predictions.parquet, found "
            "none"
        )
    return own.rename(columns={"f_beta": "score"})[["item_id", "score", "tp", "fp", "fn", "tn"]]


def anew(
    registry: Registry, model: Evidence, other: Evidence, items: pd.DataFrame, root: Path
) -> pd.DataFrame:
    """The masks that the model finds, scored here against the true ones."""
    from flowsight.datasets.images import pairs as image_pairs
    from flowsight.metrics import saliency as metrics

    base = root / other.tags.get("data_path", "data/raw")
    rows = [{str(k): str(v) for k, v in row.items()} for row in items.to_dict("records")]
    for row in rows:
        for kind in ("path", "truth"):
            key = "sha256" if kind == "path" else "truth_sha256"
            model_answers.check_file(base / row[kind], row[key], row["item_id"], model, len(rows))
    with tempfile.TemporaryDirectory(prefix="flowsight-images-") as folder:
        names = [_laid(base / row["path"], row["upright"] == "1", Path(folder)) for row in rows]
        found = model_answers.ask(
            registry, model, Path(folder), column=serve.INPUT, names=names, field="mask"
        )
    values = []
    for row, text in zip(rows, found, strict=True):
        mask = model_answers.picture(text) > 0
        tp, fp, fn, _ = metrics.confusion(mask, image_pairs.read_mask(base / row["truth"]))
        values.append(float(metrics.f_beta(tp, fp, fn)))
    return items[["item_id"]].assign(score=values)


def _laid(path: Path, upright: bool, folder: Path) -> str:
    """The image as the network is to see it, in a folder of its own; its name there.

    A served model turns an image as its EXIF says; one whose mask lies as stored is saved without.
    """
    if upright:
        shutil.copyfile(path, folder / path.name)
        return path.name
    import cv2

    from flowsight.datasets.images import pairs as image_pairs

    pixels = image_pairs.read_image(path, upright=False)
    cv2.imwrite(str(folder / f"{path.name}.png"), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    return f"{path.name}.png"
