"""The network of a row, and the weights it starts from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from flowsight.classifiers import networks
from flowsight.errors import InputError
from flowsight.nn import checkpoint
from flowsight.params import config

ROOT = Path(__file__).resolve().parents[1]
ROW = config.load(ROOT / "params.yaml").rows["spatial"]


def with_weights(name: str | None) -> config.RowParams:
    tiny = dataclasses.replace(ROW.network, backbone="tiny", weights=name)
    return dataclasses.replace(ROW, network=tiny)


def test_builds_what_the_row_says() -> None:
    network = networks.build(with_weights(None), 5)
    assert network(torch.zeros(1, 4, 32, 32)).shape == (1, 5)
    with pytest.raises(InputError, match="'unknown'"):
        networks.build(dataclasses.replace(ROW, model="unknown"), 5)


def test_weights_from_a_file(tmp_path: Path) -> None:
    assert networks.pretrained_weights(with_weights(None), tmp_path) is None
    with pytest.raises(InputError, match=r"tiny\.pt, found no such file; .*import weights"):
        networks.pretrained_weights(with_weights("tiny.pt"), tmp_path)
    checkpoint.save({"x": torch.ones(2)}, tmp_path / "tiny.pt")
    weights = networks.pretrained_weights(with_weights("tiny.pt"), tmp_path)
    assert weights is not None and torch.equal(weights["x"], torch.ones(2))


def test_tiny_has_no_imagenet_weights() -> None:
    with pytest.raises(InputError, match="imagenet"):
        networks.pretrained_weights(with_weights("imagenet"))
