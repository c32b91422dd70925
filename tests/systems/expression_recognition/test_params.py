"""Parameters: every recipe reads, and what does not fit is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from flowsight.errors import InputError
from flowsight.params import schema
from flowsight.systems.expression_recognition.instances import instances
from flowsight.systems.expression_recognition.params import Block

from .conftest import composed


def read(values: dict[str, Any]) -> Block:
    return schema.read(Block, values, "systems.expression_recognition")


@pytest.mark.parametrize("recipe", ["paper", "small", "sample", "smoke"])
def test_recipes_read(recipe: str) -> None:
    block = read(composed(recipe))
    for row in block.rows.values():
        assert row.start.init is None or block.row(row.start.init).network == row.network


def test_the_second_step_is_served_else_the_first_row() -> None:
    assert read(composed("paper")).served_row == "vgg16_transfer"
    assert read(composed("sample")).served_row == "tiny"
    assert read(composed("paper") | {"serve": "vgg_fer"}).served_row == "vgg_fer"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("start", "frozen"), True, "frozen needs weights or init"),
        (("start", "init"), "nobody", "init names no row: 'nobody'"),
        (("network", "backbone"), "vgg19", "backbone must be one of vgg16"),
        (("network", "backbone"), "vgg16", "width must be null for vgg16"),
        (("input", "crop_px"), 49, "crop_px must be in 1..resize_px"),
        (("input", "colour"), True, "tiny sees grey"),
        (("train", "class_weights"), "all", "class_weights must be one of none, inverse_root"),
        (("train", "features_lr"), 0.0, "features_lr must be in"),
        (("train", "epoch"), 3, "unknown parameter .*did you mean `epochs`"),
        (("test", "num_crops"), 5, "num_crops must be 1 or 10"),
    ],
)
def test_what_does_not_fit(path: tuple[str, str], value: Any, message: str) -> None:
    values = composed("sample")
    values["rows"]["tiny"][path[0]][path[1]] = value
    with pytest.raises(InputError, match=message):
        read(values)


def test_instances() -> None:
    found = instances(composed("paper"), {})
    assert list(found["items"]) == ["fer2013"]
    assert list(found["train"]) == ["vgg_fer-1", "vgg16_head-1", "vgg16_scratch-1"]
    assert list(found["refine"]) == ["vgg16_transfer-1"]
    second = found["refine"]["vgg16_transfer-1"]
    assert second["start"] == "checkpoints/fer2013/vgg16_head-1"
    assert len(found["predict"]) == 4
    assert found["predict"]["vgg_fer-1"]["folders"] == {
        "raw": "data/raw/fer2013",
        "items": "data/items/fer2013",
    }
    assert "data/items/fer2013/splits/1.csv" in found["train"]["vgg_fer-1"]["reads"]
