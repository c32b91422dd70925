"""Checkpoints: bare state dicts (name -> tensor), the same bytes for the same weights.

`torch.save` to a path writes the file's stem into the bytes, so two equal states under two names
would differ; saving goes through a buffer instead. Loading never runs code (`weights_only`).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from flowsight.errors import InputError
from flowsight.files import atomic_file


def save(state: Mapping[str, Tensor], path: Path | str) -> None:
    """Write a state dict atomically.

    Args:
        state: name -> tensor, any device; order is kept.
        path: the file; its folder is made.
    """
    # own, contiguous storages: views, sharing and memory formats would show in the bytes
    layout = torch.contiguous_format
    bare = {name: t.detach().cpu().clone(memory_format=layout) for name, t in state.items()}
    buffer = io.BytesIO()
    torch.save(bare, buffer)
    with atomic_file(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def load(path: Path | str) -> dict[str, Tensor]:
    """Read a state dict onto the CPU.

    Raises:
        InputError: no such file, broken, holding code, or not a state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"expected a checkpoint in {path}, found no such file; train it first")
    try:
        state = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch raises a dozen kinds for broken files
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else "empty"
        raise InputError(
            f"expected a state dict in {path}, got a file that is broken or holds other objects "
            f"({type(error).__name__}: {reason}); make it again"
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"expected name -> tensor in {path}, got {type(state).__name__} of others")
    return dict(state)


def restore(network: nn.Module, path: Path | str) -> None:
    """Put a checkpoint's weights into a network.

    Raises:
        InputError: as `load`, or names or shapes that are not this network's.
    """
    state = load(path)
    problem = differences(network.state_dict(), state)
    if problem:
        raise InputError(
            f"expected the weights of this network in {path}, got {problem}; "
            "train it again or choose the checkpoint of the same row"
        )
    network.load_state_dict(state)


def differences(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """What differs between two state dicts' names and shapes, in words; "" if nothing.

    Returns:
        For example "2 tensors missing (fc.weight, fc.bias); 1 shape wrong (conv1.weight: ...)".
    """
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    wrong = [
        f"{name}: {_shape(tensor)} for {_shape(expected[name])}"
        for name, tensor in state.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    kinds = (("missing", missing), ("unknown", unknown), ("of the wrong shape", wrong))
    return "; ".join(
        f"{len(names)} tensor{'s' if len(names) > 1 else ''} {kind} ({_some(names)})"
        for kind, names in kinds
        if names
    )


def _shape(tensor: Tensor) -> str:
    return "x".join(str(size) for size in tensor.shape) or "scalar"


def _some(names: Iterable[str], limit: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
