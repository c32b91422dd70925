"""Half of what batch: the stage's own, from the row that it trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowsight.cluster import memory
from flowsight.cluster.workplace import Workplace
from flowsight.pipeline import dvc_yaml

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("group", "row", "system"),
    [
        ("train", "resnet3d", "residual3d"),
        ("train", "fcn", "saliency"),
        ("train", "recurrent", "background"),
    ],
)
def test_first_half_is_of_the_rows_own_batch(
    tmp_path: Path, group: str, row: str, system: str
) -> None:
    stage = next(
        stage
        for stage in dvc_yaml.load(ROOT).values()
        if stage.group == group and (stage.key or "").startswith(f"{row}-")
    )
    own = dvc_yaml.read_yaml(ROOT / "params.yaml")
    for key in ("systems", system, "rows", row, "train", "batch_size"):
        own = own[key]
    place = Workplace(repo="", home=tmp_path, runs=str(tmp_path), scratch=tmp_path)
    assert own != 16  # else the fallback could not be told from it
    size = memory.halve(place, "run", stage, ROOT, used=None, message="it did not fit")
    assert size == own // 2
    assert memory.halve(place, "run", stage, ROOT, used=size, message="") == max(1, size // 2)
    assert memory.remembered(place, "run", stage.name) == max(1, size // 2)
