"""The state of an unfinished training, kept outside the pipeline's outputs.

A training that is killed goes on at the start of the epoch it was in. Its state lies below
`$FLOWSIGHT_SCRATCH` (default `build/scratch`; on a cluster a folder that all workers see) under a
key made of everything that goes into the stage, so another setting never meets it.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from flowsight import files

FILE = "last.ckpt"


def folder(key: str) -> Path:
    """Scratch folder of a training.

    Args:
        key: `<stage>/<hash>`, a relative path.
    """
    return files.scratch(key)


def save(state: dict[str, Any], key: str) -> None:
    """Write the state atomically: killed while writing, the older one stays."""
    with files.atomic_file(folder(key) / FILE) as temporary:
        torch.save(state, temporary)


def load(key: str) -> dict[str, Any] | None:
    """The state to go on from, on the CPU; None if there is none.

    A broken file is no reason to fail: the training starts anew and says so.
    """
    path = folder(key) / FILE
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for broken files
        reason = type(error).__name__
        print(f"{path} is broken ({reason}); training starts anew", file=sys.stderr)
        return None
    return state


def discard(key: str) -> None:
    """Remove the state of a training whose outputs are written."""
    shutil.rmtree(folder(key), ignore_errors=True)
    parent = folder(key).parent
    if parent.is_dir() and not any(parent.iterdir()):
        parent.rmdir()
