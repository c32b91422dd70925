"""Networks of a bundle, built as its description says and filled with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from flowsight import files
from flowsight.contract import Shelf
from flowsight.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

MODEL = "model.json"


def network(model: ModuleType, shelf: Shelf, name: str) -> nn.Module:
    """A row's network with its weights, still on the CPU and in training mode.

    Args:
        model: the system's `network`.
        shelf: the bundle.
        name: of the row, and of its file.

    Raises:
        InputError: weights that are missing, were changed, or are of another network.
    """
    from flowsight.classifiers import networks

    made = networks.build(model, shelf.rows[name], len(shelf.description["classes"]))
    fill(made, checked_state(shelf, name), shelf.folder / f"{name}.pt")
    return made


def checked_state(shelf: Shelf, name: str) -> dict[str, Tensor]:
    """The weights of this name, which must be those that the description lists.

    Raises:
        InputError: missing or changed, or no weights.
    """
    from flowsight.nn import checkpoint

    listed = shelf.description["files"][name]
    path = shelf.folder / Path(listed["file"]).name  # never beside the bundle
    state = checkpoint.load(path)
    if files.sha256(path) != listed["sha256"]:
        raise InputError(
            f"expected the weights that {shelf.folder / MODEL} lists in {path}, got others; "
            "write the bundle again"
        )
    return state


def fill(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Put weights into a network.

    Raises:
        InputError: they are another network's; the file is named.
    """
    from flowsight.nn import checkpoint

    problem = checkpoint.differences(network.state_dict(), state)
    if problem:
        raise InputError(f"expected the weights of its row in {path}, got {problem}")
    network.load_state_dict(state)
