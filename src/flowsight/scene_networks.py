"""The network of a row over scenes: its model, built by name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from flowsight.errors import InputError
from flowsight.scene_rows import SceneRowParams

if TYPE_CHECKING:
    from flowsight.models.background import BackgroundNetwork


def build(row: SceneRowParams) -> BackgroundNetwork:
    """The row's network, untrained.

    Args:
        row: `row.model` is the module of `flowsight.models` that builds it.

    Returns:
        (B, C, T, H, W) and a state -> logits (B, T, H, W) and the next state.

    Raises:
        InputError: no such model.
    """
    name = f"flowsight.models.{row.model}"
    try:
        model = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise InputError(
            f"expected the name of a module in src/flowsight/models, got {row.model!r} in the "
            "row's `model`"
        ) from None
    network: BackgroundNetwork = model.build(
        channels=row.input.channels,
        lstm_units=row.network.lstm_units,
        gru_units=row.network.gru_units,
        filters=row.network.filters,
        dropout=row.network.dropout,
        pairs=row.network.pairs,
    )
    return network
