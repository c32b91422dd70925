"""What the systems over clips share: their data, their part of a bundle, and a video's way in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsight.contract import Data
from flowsight.params.config import Params
from flowsight.serving import memory, origin
from flowsight.serving.memory import ClipInMemory, Limits, Needs

if TYPE_CHECKING:
    from flowsight.serving.bundle import Bundle
    from flowsight.serving.result import Update


def data(params: Params, system: str) -> Data:
    """The data set of clips, its splits, and the system's rows."""
    return Data(params.dataset.name, params.splits.ids, params.system(system).rows)


def described(params: Params, root: Path) -> Mapping[str, Any]:
    """Entries of `model.json`: class names by index, how frames and flow are stored.

    Raises:
        InputError: no manifest.
    """
    return {
        "classes": origin.read_classes(root / "data/manifests" / params.dataset.name),
        "frames": asdict(params.frames),
        "flow": asdict(params.flow),
    }


def load(bundle: Bundle, video: Path, needs: Needs, limits: Limits, update: Update) -> ClipInMemory:
    """A video in memory: frames and flow pass through the packs' size, JPEG and quantisation.

    Raises:
        UnreadableVideo: not a video, or beyond the limits.
    """
    assert bundle.frames is not None and bundle.flow is not None  # `described` wrote them
    part = "flow" if needs.flow else "frames"
    return memory.load(
        video,
        frames=bundle.frames,
        flow=bundle.flow,
        needs=needs,
        limits=limits,
        update=lambda done, total: update(part, done, total),
    )
