"""Where the evaluation finds its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Folders:
    """What the evaluation reads (`data/...` outputs of earlier stages)."""

    predictions: Path
    attention: Path
    manifest: Path
    splits: Path
    truth: Path
    frames: Path
    flow: Path
    status: Path
    """CSV with the merged status of every clip."""
