"""Drawn faces of a few persons, and what a stage is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ruamel.yaml import YAML

from flowsight.datasets.images import labelled
from flowsight.params import schema
from flowsight.samples import face
from flowsight.systems.expression_recognition.params import Block

CONF = Path(__file__).resolve().parents[3] / "conf/systems/expression_recognition"


def composed(recipe: str) -> dict[str, Any]:
    """A recipe over its base, as Hydra lays one over the other."""
    yaml = YAML(typ="safe")
    base, own = (yaml.load((CONF / f"{name}.yaml").read_text()) for name in ("base", recipe))
    own.pop("defaults")
    return base | {
        key: base[key] | value if isinstance(value, dict) and key in base else value
        for key, value in own.items()
    }


@pytest.fixture(scope="session")
def block() -> Block:
    """Two rows: a small network, and a second step from it."""
    return schema.read(Block, composed("smoke"), "systems.expression_recognition")


@pytest.fixture(scope="session")
def params(block: Block) -> Any:
    """All parameters that a system reads."""
    return SimpleNamespace(seed=3, threads=1, recipe="smoke", system=lambda name: block)


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`raw` of 3 + 1 persons, 2 pictures of each expression, one of them twice; and `items`."""
    root = tmp_path_factory.mktemp("faces")
    raw = root / "raw"
    raw.mkdir()
    face.write_dataset(raw, seed=3, num_train=3, num_test=1, num_pictures=2)
    twin = (raw / "train/sad/p00_0.png").read_bytes()
    (raw / "test/sad/p03_0.png").write_bytes(twin)
    labelled.write_labelled(
        raw, root / "items", split_ids=["1"], val_share=0.3, seed=3, max_quarantined=0.0
    )
    return root


@pytest.fixture
def job(
    block: Block, params: Any, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Makes a job of a row; keyword arguments replace fields."""
    monkeypatch.setenv("FLOWSIGHT_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("FLOWSIGHT_WORKERS", "0")

    def make(row_name: str = "tiny", **changes: Any) -> Any:
        fields = {
            "system": "expression_recognition",
            "row_name": row_name,
            "row": block.rows[row_name],
            "block": block,
            "params": params,
            "split": "1",
            "folders": {"raw": faces / "raw", "items": faces / "items"},
            "stage": f"train@{row_name}",
            "scratch_key": f"{row_name}/0",
            "log": lambda metrics, epoch: None,
            "start": None,
            "checkpoint": tmp_path / "checkpoint",
            "out": tmp_path / "out",
        }
        return SimpleNamespace(**(fields | changes))

    return make
