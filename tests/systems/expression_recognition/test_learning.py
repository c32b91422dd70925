"""What is learnt: expressions of persons never seen, told from brows, eyes, nose and mouth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flowsight.datasets.images import labelled
from flowsight.datasets.images.pairs import read_image
from flowsight.nn import checkpoint
from flowsight.params import schema
from flowsight.samples import face
from flowsight.systems.expression_recognition import predict
from flowsight.systems.expression_recognition import train as training
from flowsight.systems.expression_recognition.params import Block, Row

from .conftest import composed


@pytest.fixture
def row() -> Row:
    block = schema.read(Block, composed("sample"), "systems.expression_recognition")
    found = block.rows["tiny"]
    return replace(found, train=replace(found.train, epochs=14))


@pytest.mark.slow
def test_attention_lies_on_the_features_of_strangers(
    job: Callable[..., Any], row: Row, tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    face.write_dataset(raw, seed=3, num_train=16, num_test=4, num_pictures=6)
    labelled.write_labelled(
        raw, tmp_path / "items", split_ids=["1"], val_share=0.0, seed=3, max_quarantined=0.0
    )
    own = job(row=row, folders={"raw": raw, "items": tmp_path / "items"})
    checkpoint.save(training.train(own).state, own.checkpoint / "model.pt")
    predict.predict(own)
    table = pd.read_parquet(own.out / "predictions.parquet")
    logits = table[[f"logit_{name}" for name in face.CLASSES]].to_numpy()
    best = np.array(face.CLASSES)[logits.argmax(axis=1)]
    assert (best == table["label"]).mean() > 0.6  # chance is 1/8
    network = predict.restored(row, 8, own.checkpoint)
    shares, areas = [], []
    for index in range(64):
        look = face.draw_look(3, 16 + index % 4)
        k = index % 8
        drawn = face.picture(look, face.CLASSES[k], 48, seed=9, index=index)
        levels = predict.attention_map(network, drawn.image, row, k).astype(float)
        if levels.any():
            shares.append(levels[drawn.features].sum() / levels.sum())
            areas.append(drawn.features.mean())
    assert len(shares) > 48
    assert np.mean(shares) > np.mean(areas)


@pytest.mark.slow
def test_real_faces_go_through(job: Callable[..., Any], shared_data: Path, tmp_path: Path) -> None:
    raw = shared_data / "fer2013"
    if not raw.is_dir():
        pytest.skip(f"no FER2013 in {raw}")
    labelled.write_labelled(
        raw, tmp_path / "items", split_ids=["1"], val_share=0.1, seed=3, max_quarantined=0.0
    )
    own = job(folders={"raw": raw, "items": tmp_path / "items"})
    trained = training.train(own)
    assert np.isfinite(trained.history[0].train_loss)
    checkpoint.save(trained.state, own.checkpoint / "model.pt")
    predict.predict(own)
    table = pd.read_parquet(own.out / "predictions.parquet")
    assert (table["subset"] == "test").sum() == 350
    assert list(table)[3:] == [f"logit_{name}" for name in labelled.ORDER[:7]]
    assert read_image(
        raw / "test/happy" / sorted((raw / "test/happy").iterdir())[0].name
    ).shape == (
        48,
        48,
        3,
    )
