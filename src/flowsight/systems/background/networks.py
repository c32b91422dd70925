"""The network of a row over scenes: its model, built by name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from flowsight.errors import InputError
from flowsight.systems.background.params import SceneRowParams

if TYPE_CHECKING:
    from flowsight.systems.background.network import BackgroundNetwork


def build(row: SceneRowParams) -> BackgroundNetwork:
    """The row's network, untrained.

    Args:
        row: `row.model` is the system of `flowsight.systems` whose network it is; builds it.

    Returns:
        (B, C, T, H, W) and a state -> logits (B, T, H, W) and the next state.

    Raises:
        InputError: no such model.
    """
    name = f"flowsight.systems.{row.model}.network"
    try:
        model = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not name.startswith(str(error.name)):
            raise
        raise InputError(
            f"expected the name of a module in src/flowsight/systems, got {row.model!r} in the "
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
