"""The network of a row over scenes: built as its parameters say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowsight.systems.background import network as network_module
from flowsight.systems.background.params import SceneRowParams

if TYPE_CHECKING:
    from flowsight.systems.background.network import BackgroundNetwork


def build(row: SceneRowParams) -> BackgroundNetwork:
    """The row's network, untrained.

    Args:
        row: `network` and `input` are read.

    Returns:
        (B, C, T, H, W) and a state -> logits (B, T, H, W) and the next state.

    """
    network: BackgroundNetwork = network_module.build(
        channels=row.input.channels,
        lstm_units=row.network.lstm_units,
        gru_units=row.network.gru_units,
        filters=row.network.filters,
        dropout=row.network.dropout,
        pairs=row.network.pairs,
    )
    return network
