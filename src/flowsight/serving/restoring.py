"""Networks of a bundle, built as its description says and filled with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsight import files
from flowsight.errors import InputError
from flowsight.rows import RowParams

if TYPE_CHECKING:
    from torch import Tensor, nn

    from flowsight.attention.attention_net import AttentionNetwork

MODEL = "model.json"


@dataclass(frozen=True)
class ServedStream:
    """One stream's networks, in evaluation mode, on one device."""

    row: RowParams
    """Of phase 2: what is scored."""
    phase1_row: RowParams
    """Of phase 1: what attention is extracted from."""
    phase1: nn.Module
    attention: AttentionNetwork
    phase2: nn.Module


def stream(
    folder: Path,
    description: Mapping[str, Any],
    rows: Mapping[str, RowParams],
    name: str,
    device: Any,
) -> ServedStream:
    """Build a stream's networks.

    Args:
        folder: the bundle.
        description: its `model.json`.
        rows: its rows.
        name: the stream's phase-2 row.
        device: where to compute.

    Raises:
        InputError: weights that are missing, were changed, or are of other networks.
    """
    import torch

    row = rows[name]
    before = str(row.init)
    num_classes = len(description["classes"])
    # memory formats as the pipeline has them: others may change the last bits
    phase1 = _network(folder, description, rows[before], before, num_classes)
    phase2 = _network(folder, description, row, name, num_classes)
    return ServedStream(
        row=row,
        phase1_row=rows[before],
        phase1=phase1.to(device).eval(),
        attention=_attention(folder, description, before).to(device).eval(),
        phase2=phase2.to(device).to(memory_format=torch.channels_last).eval(),
    )


def _network(
    folder: Path, description: Mapping[str, Any], row: RowParams, name: str, num_classes: int
) -> nn.Module:
    from flowsight import networks

    network = networks.build(row, num_classes)
    _restore(network, _checked_state(folder, description, name), folder / f"{name}.pt")
    return network


def _attention(folder: Path, description: Mapping[str, Any], name: str) -> AttentionNetwork:
    from flowsight.attention import attention_net

    name = f"attention-{name}"
    state = _checked_state(folder, description, name)
    firsts = [state[key] for key in state if key.endswith(".0.weight")]
    if not firsts or any(weight.ndim != 4 for weight in firsts):
        raise InputError(
            f"expected an attention network in {folder / f'{name}.pt'}, got other weights"
        )
    network = attention_net.build(
        in_channels=[weight.shape[1] for weight in firsts],
        hidden_channels=description["attention"]["hidden_channels"],
    )
    _restore(network, state, folder / f"{name}.pt")
    return network


def _checked_state(folder: Path, description: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    from flowsight import checkpoint

    listed = description["files"][name]
    path = folder / Path(listed["file"]).name  # never beside the bundle
    state = checkpoint.load(path)
    if files.sha256(path) != listed["sha256"]:
        raise InputError(
            f"expected the weights that {folder / MODEL} lists in {path}, got others; "
            "write the bundle again"
        )
    return state


def _restore(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    from flowsight import checkpoint

    problem = checkpoint.differences(network.state_dict(), state)
    if problem:
        raise InputError(f"expected the weights of its row in {path}, got {problem}")
    network.load_state_dict(state)
