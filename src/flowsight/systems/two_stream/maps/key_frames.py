"""Maps of key frames only, and the frames between them filled in along the flow.

Axes: T frames, K key frames, h x w map, H x W flow field.

For a frame t between the key frames a < b, both maps are carried to t and mixed by nearness:

    m_t(x) = (b - t) / (b - a) m_a(x + D_ta(x)) + (t - a) / (b - a) m_b(x + D_tb(x))

D_tb is the stored flow F (field t leads from frame t to t + 1), followed frame by frame:
D_tb(x) = F_t(x) + D_(t+1)b(x + F_t(x)). D_ta follows the inverse of F, found by iterating
B(x) = -F(x + B(x)). As every map, the mixture is divided by its maximum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from flowsight.flow.quantize import dequantize
from flowsight.video import pack

Floats = npt.NDArray[np.float32]

_FINENESS = 4  # points of the grid that a map's pixel is carried with, per side
_INVERSE_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class KeyFrames:
    """Which frames of a clip get a map of their own, and where its flow is."""

    every: int = 1
    """Every k-th frame and the last; 1: all."""
    packs: Path | None = None
    """Folder of the packs that the row reads."""
    flow: Path | None = None
    """Folder of the flow packs, laid out as `packs`."""

    def indices(self, num_frames: int) -> Sequence[int]:
        """Key frames of a clip: the first, each k-th after it, and the last."""
        if self.every == 1:
            return range(num_frames)
        return sorted({*range(0, num_frames, self.every), num_frames - 1})

    def fill(self, maps: Floats, num_frames: int, clip_pack: Path) -> Floats:
        """Maps of all frames from those of the key frames.

        Args:
            maps: (K, h, w) in [0, 1].
            num_frames: T.
            clip_pack: the clip's pack below `packs`.

        Returns:
            (T, h, w) float32 in [0, 1]; the key frames' as they are.

        Raises:
            InputError: the clip's flow pack is missing or broken.
        """
        if self.every == 1 or num_frames < 2:
            return maps
        if self.packs is None or self.flow is None:
            raise ValueError("expected folders of packs and flow where maps are filled in")
        path = self.flow / clip_pack.relative_to(self.packs)
        return between(maps, self.indices(num_frames), read_fields(path, num_frames))


EVERY_FRAME = KeyFrames()
"""All frames go through the network."""


def read_fields(path: Path, num_frames: int) -> Floats:
    """The stored flow of a clip: (T - 1, 2, H, W) in px of its own size."""
    bound_px = float(pack.read_meta(path)["bound_px"])
    return dequantize(pack.read_flow(path, range(num_frames - 1)), bound_px)


def between(maps: Floats, keys: Sequence[int], fields: Floats | None) -> Floats:
    """Fill in the maps between key frames.

    Args:
        maps: (K, h, w) non-negative.
        keys: K rising frame indices.
        fields: (T - 1, 2, H, W) flow in px, u then v; None: maps are mixed where they are.

    Returns:
        (T, h, w) float32 with T = keys[-1] + 1; each map but the key frames' has maximum 1, or is
        zero everywhere.
    """
    maps = np.asarray(maps, dtype=np.float32)
    filled = np.zeros((keys[-1] + 1, *maps.shape[1:]), np.float32)
    filled[list(keys)] = maps
    grid = _Grid(maps.shape[1], maps.shape[2])
    for index, (a, b) in enumerate(pairwise(keys)):
        if b - a < 2:
            continue
        flow = None if fields is None else grid.scaled(fields[a:b])
        ends = maps[index], maps[index + 1]
        filled[a + 1 : b] = _mixtures(*ends, b - a, flow, grid)
    return filled


def _mixtures(
    first: Floats, last: Floats, length: int, flow: list[Floats] | None, grid: _Grid
) -> list[Floats]:
    """The length - 1 maps between two key frames' maps."""
    if flow is None:
        carried = [(first, last)] * (length - 1)
    else:
        to_first, to_last = _backwards(flow, grid), _forwards(flow, grid)
        carried = [
            (grid.carry(first, back), grid.carry(last, onwards))
            for back, onwards in zip(to_first, to_last, strict=True)
        ]
    shares = [np.float32(step / length) for step in range(1, length)]
    mixed = [(1 - s) * one + s * other for s, (one, other) in zip(shares, carried, strict=True)]
    return [m / m.max() if m.max() > 0 else m for m in mixed]


def _forwards(flow: Sequence[Floats], grid: _Grid) -> list[Floats]:
    """Displacements from frames 1 ... n - 1 to frame n, of n fields."""
    found = [flow[-1]]
    for field in reversed(flow[1:-1]):
        found.append(field + grid.sample(found[-1], field))
    return found[::-1]


def _backwards(flow: Sequence[Floats], grid: _Grid) -> list[Floats]:
    """Displacements from frames 1 ... n - 1 to frame 0, of n fields."""
    found: list[Floats] = []
    for field in flow[:-1]:
        back = -field
        for _ in range(_INVERSE_STEPS):
            back = -grid.sample(field, back)
        found.append(back + grid.sample(found[-1], back) if found else back)
    return found


class _Grid:
    """Points, several a map's pixel, that displacements are followed on; (h, w, 2), x then y."""

    def __init__(self, height: int, width: int) -> None:
        self.map_size = (width, height)
        self.size = (width * _FINENESS, height * _FINENESS)
        columns, rows = (np.arange(n, dtype=np.float32) for n in self.size)
        self.points: Floats = np.stack(np.meshgrid(columns, rows), axis=-1)

    def scaled(self, fields: Floats) -> list[Floats]:
        """(n, 2, H, W) in px -> n fields (h, w, 2) in the grid's px."""
        height, width = fields.shape[2:]
        scale = np.array([self.size[0] / width, self.size[1] / height], np.float32)
        return [self._resized(field.transpose(1, 2, 0), self.size) * scale for field in fields]

    def sample(self, values: Floats, displacement: Floats) -> Floats:
        """values(x + displacement(x)), bilinear; beyond the edge the edge's."""
        return self._remapped(values, self.points + displacement)

    def carry(self, attention: Floats, displacement: Floats) -> Floats:
        """A map (h, w) as seen from where `displacement` leads to it; where that is 0, itself."""
        moved, still = (
            self._resized(self._remapped(attention, self._in_map(p)), self.map_size)
            for p in (self.points + displacement, self.points)
        )
        # bringing a map to the grid and back blurs it a little: only the change counts
        return np.maximum(attention + moved - still, 0)

    def _in_map(self, points: Floats) -> Floats:
        return (points + np.float32(0.5)) / np.float32(_FINENESS) - np.float32(0.5)

    def _remapped(self, values: Floats, points: Floats) -> Floats:
        maps = points[..., 0], points[..., 1]
        edge = cv2.BORDER_REPLICATE
        found = cv2.remap(values, *maps, interpolation=cv2.INTER_LINEAR, borderMode=edge)
        return np.asarray(found, dtype=np.float32)

    def _resized(self, values: Floats, size: tuple[int, int]) -> Floats:
        contiguous = np.ascontiguousarray(values)
        resized = cv2.resize(contiguous, size, interpolation=cv2.INTER_AREA)
        return np.asarray(resized, dtype=np.float32)
