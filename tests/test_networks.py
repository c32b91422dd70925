"""The network of a row, and the weights it starts from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from flowsight.classifiers import networks
from flowsight.classifiers.params import RowParams
from flowsight.errors import InputError
from flowsight.nn import checkpoint
from flowsight.params import config
from flowsight.systems.two_stream import network as two_stream

ROOT = Path(__file__).resolve().parents[1]
ROW = config.load(ROOT / "params.yaml").row("spatial")


def with_weights(name: str | None) -> RowParams:
    tiny = dataclasses.replace(ROW.network, backbone="tiny")
    start = dataclasses.replace(ROW.start, weights=name)
    return dataclasses.replace(ROW, start=start, network=tiny)


def test_builds_what_the_row_says() -> None:
    row = with_weights(None)
    network = networks.build(two_stream, row, 5)
    assert network(torch.zeros(1, 4, 32, 32)).shape == (1, 5)
    unknown = dataclasses.replace(row.network, backbone="unknown")
    with pytest.raises(InputError, match="'unknown'"):
        networks.build(two_stream, dataclasses.replace(row, network=unknown), 5)


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
