"""What the stages that make attention maps write: packs of maps, and pictures of some."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from flowsight.batches.clips import Clip
from flowsight.video import heat, pack


def write(clip: Clip, maps: npt.NDArray[np.uint8], folder: Path, meta: Mapping[str, Any]) -> None:
    """Write a clip's maps, (T, h, w), as `<folder>/<clip_id>.zip`."""
    path = folder / f"{clip.clip_id}.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    pack.write_maps(path, maps, {**meta, "clip_id": clip.clip_id})


def quantise(maps: Tensor) -> npt.NDArray[np.uint8]:
    """[0, 1] -> 0..255, to the nearest."""
    return (maps * 255).round().byte().numpy()


def draw(clip: Clip, modality: str, folder: Path) -> None:
    """Three frames (flow fields) of a clip with its maps, as a PNG in `folder/pictures`."""
    indices = evenly(clip.num_frames, 3)
    maps = pack.read_maps(folder / f"{clip.clip_id}.zip", indices)
    if modality == "flow":
        fields = pack.read_flow(clip.pack, [min(i, clip.num_frames - 2) for i in indices])
        images = [heat.flow_picture(field) for field in fields]
    else:
        images = list(pack.read_frames(clip.pack, indices))
    strip = [heat.overlay(image, m) for image, m in zip(images, maps, strict=True)]
    heat.save_strip(strip, folder / "pictures" / f"{clip.clip_id.replace('/', '__')}.png")


def evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` indices below `count`: the middles of equal parts, in order."""
    wanted = min(wanted, count)
    return [(2 * i + 1) * count // (2 * wanted) for i in range(wanted)]
