"""Pictures like the paper's figure 1.1: each stream's attention laid over the other's input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from flowsight.flow.quantize import dequantize
from flowsight.video import pack

PANEL_HEIGHT_PX = 240
_MOTION_CANDIDATES = 16
_FULL_COLOUR_PX = 1.0  # a field slower than this is not stretched to full colour: it is noise

Image = npt.NDArray[Any]
Floats = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Panels:
    """What one overlay shows; all images (H, W, 3) uint8 RGB of the same size."""

    frame_index: int
    frame: Image
    frame_attended: Image
    """The frame under the temporal stream's map T."""
    flow: Image
    flow_attended: Image
    """The flow field under the spatial stream's map S."""


def choose_clips(clip_ids: Sequence[str], labels: Sequence[str], count: int) -> list[str]:
    """A fixed, class-balanced choice that does not look at the predictions.

    Takes the first clip (by id) of each class in turn, then the second of each, and so on.
    """
    by_class: dict[str, list[str]] = {}
    for clip, label in sorted(zip(clip_ids, labels, strict=True)):
        by_class.setdefault(label, []).append(clip)
    turns = max((len(clips) for clips in by_class.values()), default=0)
    order = [by_class[c][t] for t in range(turns) for c in sorted(by_class) if t < len(by_class[c])]
    return order[:count]


def colour_wheel(flow: Floats, scale_px: float) -> Image:
    """Flow as colour: hue is direction, saturation is speed, white is rest.

    Args:
        flow: (2, H, W), px per frame, u then v.
        scale_px: speed with full saturation.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    speed, angle = cv2.cartToPolar(flow[0], flow[1])
    hue = angle / (2 * np.pi) * 179
    saturation = np.clip(speed / scale_px, 0, 1) * 255
    hsv = np.stack([hue, saturation, np.full_like(hue, 255)], axis=-1)
    return cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)


def spotlight(image: Image, attention: Floats, *, shade: tuple[int, int, int]) -> Image:
    """An image that keeps its colours where the map is high and sinks into `shade` elsewhere.

    Args:
        image: (H, W, 3) uint8.
        attention: (H, W) in [0, 1].
        shade: RGB of no attention.

    Returns:
        (H, W, 3) uint8 with lines at one and two thirds.
    """
    share = (0.22 + 0.78 * attention)[..., None]
    lit = (image * share + np.array(shade, dtype=np.float32) * (1 - share)).astype(np.uint8)
    for level, colour, width in ((0.33, (255, 196, 84), 1), (0.67, (255, 112, 67), 2)):
        mask = (attention >= level).astype(np.uint8)
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(lit, outlines, -1, colour, width, cv2.LINE_AA)
    return lit


def read_panels(frames: Path, flow: Path, spatial_maps: Path, temporal_maps: Path) -> Panels:
    """The panels of a clip's frame with the strongest mean motion.

    Args:
        frames: the clip's pack of frames.
        flow: its pack of flow fields.
        spatial_maps: its maps S of the spatial stream.
        temporal_maps: its maps T of the temporal stream.

    Raises:
        InputError: a pack is missing or broken.
    """
    bound_px = float(pack.read_meta(flow)["bound_px"])
    last = max(pack.num_frames(frames) - 2, 0)
    candidates = np.unique(np.linspace(0, last, _MOTION_CANDIDATES).round().astype(int))
    fields = dequantize(pack.read_flow(flow, candidates.tolist()), bound_px)
    speed = np.hypot(fields[:, 0], fields[:, 1])
    # stored rest is one of two levels beside zero; without this it would look like motion
    fields = np.where(speed[:, None] > 1.5 * 2 * bound_px / 255, fields, np.float32(0))
    best = int(np.argmax(speed.mean(axis=(1, 2))))
    index = int(candidates[best])
    frame = pack.read_frames(frames, [index])[0]
    size = (round(PANEL_HEIGHT_PX * frame.shape[1] / frame.shape[0]), PANEL_HEIGHT_PX)
    scale_px = max(float(np.quantile(speed[best], 0.99)), _FULL_COLOUR_PX)
    frame = cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC)
    colours = cv2.resize(colour_wheel(fields[best], scale_px), size)
    return Panels(
        frame_index=index,
        frame=frame,
        frame_attended=spotlight(frame, _read_map(temporal_maps, index, size), shade=(12, 14, 22)),
        flow=colours,
        flow_attended=spotlight(colours, _read_map(spatial_maps, index, size), shade=(12, 14, 22)),
    )


def _read_map(path: Path, index: int, size: tuple[int, int]) -> Floats:
    small = pack.read_maps(path, [index])[0].astype(np.float32) / 255
    return cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)


def clip_pack(root: Path, shards: Mapping[str, int], clip_id: str) -> Path:
    """Path of a clip's pack below a data stage's folder: `<shard>/<clip_id>.zip`."""
    return root / str(shards[clip_id]) / f"{clip_id}.zip"
