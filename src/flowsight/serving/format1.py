"""Bundles of format 1, as versions registered before rows had five blocks have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowsight.errors import InputError

_START = ("init", "maps", "map_control", "explains", "slim")
_GONE = ("system", "model", "task", "experiment")


def read(description: Mapping[str, Any]) -> dict[str, Any]:
    """A description of format 1 as one of format 2; the networks are the same.

    Raises:
        InputError: rows that are none.
    """
    try:
        rows = {name: _row(values) for name, values in description["rows"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"expected the rows of a model of format 1, got {type(error).__name__} {error}; "
            "write the bundle again"
        ) from None
    return {**description, "format": 2, "rows": rows}


def _row(values: Mapping[str, Any]) -> dict[str, Any]:
    row = {name: value for name, value in values.items() if name not in (*_START, *_GONE)}
    start = {name: values[name] for name in _START if name in values}
    network = dict(row["network"])
    if "weights" in network:
        start["weights"] = network.pop("weights")
    row |= {"start": start, "network": network}
    if "loss" in row:
        row["train"] = {**row["train"], "loss": row.pop("loss")}
    if "threshold" in row:
        row["test"] = {"threshold": row.pop("threshold")}
    return row
