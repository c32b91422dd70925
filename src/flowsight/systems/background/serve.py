"""A recurrent network over a static camera that says what moves: see `systems.System`."""

from __future__ import annotations

import dataclasses
import io
import json
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from flowsight import files
from flowsight.contract import Data, Described, Shelf, Source, chosen_row
from flowsight.errors import InputError, ResourceError
from flowsight.metrics.change_detection import Mask
from flowsight.params.config import Params
from flowsight.serving import scenes, shown
from flowsight.serving.memory import Limits, Needs
from flowsight.serving.result import Update
from flowsight.serving.scenes import Stream
from flowsight.systems.background import counts
from flowsight.systems.background.params import SYSTEM, SceneRowParams
from flowsight.video import film, pack

if TYPE_CHECKING:
    from flowsight.serving.bundle import Bundle
    from flowsight.systems.background.network import BackgroundNetwork

ROW = SceneRowParams
SUBJECT = "scenes"
INPUT = "video"
REQUEST = "masks"
TOP = False
OUTPUTS: Mapping[str, str] = {
    "width": "long",
    "height": "long",
    "moving_share": "double",
    "shares": "double[]",
    "num_frames": "long",
    "duration_sec": "double",
    "masks": "string",
}
COLUMNS = ("frames", "size, px", "moving", "most in a frame")
ENDINGS = film.ENDINGS
_TINT = np.array([255, 40, 40], np.float32)
_FPS = 25.0
"""Of a film of pictures, which do not say."""


@dataclass(frozen=True)
class Served:
    """The network, in evaluation mode, on its device."""

    row: SceneRowParams
    network: BackgroundNetwork


@dataclass(frozen=True, kw_only=True, eq=False)
class Moving:
    """What moves in a video of T frames."""

    shares: tuple[float, ...]
    """(T,) of the pixels of each frame."""
    shape: tuple[int, int]
    """H, W."""
    fps: float | None
    masks: tuple[bytes, ...] | None
    """(T,) PNGs, where they were asked for."""
    stream: Stream | None
    """Where the frames can be read once more, where a film was asked for."""
    video: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    def named(self, name: str, seconds: dict[str, float]) -> Self:
        """See `Result`."""
        return dataclasses.replace(self, video=name, seconds=seconds)

    def record(self, count: int) -> dict[str, Any]:
        """Size in px, share of the pixels that move, in all and of each frame."""
        duration = None if self.fps is None else round(len(self.shares) / self.fps, 6)
        return {
            "video": self.video,
            "width": self.shape[1],
            "height": self.shape[0],
            "moving_share": float(np.mean(self.shares)),
            "shares": list(self.shares),
            "num_frames": len(self.shares),
            "duration_sec": duration,
            "seconds": {part: round(sec, 4) for part, sec in self.seconds.items()},
        }

    def requested(self) -> dict[str, Any]:
        """A zip of the masks, as base64."""
        return {"masks": None if self.masks is None else shown.text(self._zip())}

    def lines(self, count: int) -> list[tuple[str, ...]]:
        """One line."""
        most = max(self.shares)
        place = self.shares.index(most) + 1
        size = f"{self.shape[1]} x {self.shape[0]}"
        mean = f"{np.mean(self.shares):.1%}"
        return [(str(len(self.shares)), size, mean, f"{most:.1%} (frame {place})")]

    def light(self) -> Self:
        """Without the masks."""
        return dataclasses.replace(self, masks=None, stream=None)

    def save_masks(self, folder: Path, name: str) -> Path:
        """`<name>.zip` with `mask_000001.png` ..., black and white (moving), and `meta.json`."""
        path = folder / f"{name}.zip"
        with files.atomic_file(path) as temporary:
            temporary.write_bytes(self._zip())
        return path

    def _zip(self) -> bytes:
        """As the stage `predict` packs masks, here of every frame."""
        assert self.masks is not None  # `predict` was asked for them
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for index, content in enumerate(self.masks):
                archive.writestr(counts.mask_name(index), content)
            meta = {"num_masks": len(self.masks), "first": 0, "size": list(self.shape[::-1])}
            archive.writestr(pack.META, json.dumps(meta, sort_keys=True))
        return buffer.getvalue()


def served_row(params: Params) -> str:
    """The row that is served: the first one that a median background helps, else the first.

    That one is made for scenes that it was not trained on, which is what a service meets.
    `systems.background.serve` names another.

    Raises:
        InputError: the system does not run, or has no row of that name.
    """
    rows = params.system(SYSTEM).rows
    if params.system(SYSTEM).serve is not None:
        return chosen_row(params.system(SYSTEM).serve, rows, SYSTEM)
    return min(rows, key=lambda name: rows[name].input.background_frames == 0)


def data(params: Params) -> Data:
    """Videos of static cameras."""
    rows = params.system(SYSTEM).rows
    return Data(params.scenes.name, tuple(params.scenes.splits), rows)


def describe(params: Params, split: str, source: Source) -> Described:
    """One row, see `served_row`."""
    row = served_row(params)
    return Described({"row": row}, (row,), {row: f"checkpoints/{params.scenes.name}/{row}-{split}"})


def selection(description: Mapping[str, Any]) -> dict[str, str]:
    """The served row."""
    return {"row": description["row"]}


def tags(description: Mapping[str, Any]) -> dict[str, str]:
    """Which row, what it sees of a frame, and from where on a pixel moves."""
    row = description["rows"][description["row"]]
    frames = row["input"]["background_frames"]
    colour = "colour" if row["input"]["colour"] else "grey"
    median = f"{colour}, median of {frames} frames" if frames else colour
    return {
        "row": description["row"],
        "input": median,
        "threshold": f"{row['test']['threshold']:g}",
    }


def restore(shelf: Shelf) -> Served:
    """The row's network."""
    from flowsight.serving import restoring
    from flowsight.systems.background import networks

    name = shelf.description["row"]
    row: SceneRowParams = shelf.rows[name]
    network = networks.build(row)
    restoring.fill(network, restoring.checked_state(shelf, name), shelf.folder / f"{name}.pt")
    return Served(row, network.to(shelf.device).eval())


def with_views(served: Served, num_views: int | None, num_crops: int | None) -> Served:
    """Itself: a video is seen once, as a whole.

    Raises:
        InputError: views are asked for.
    """
    if num_views is not None or num_crops is not None:
        raise InputError("expected no views or crops of a scene: every frame is seen, as a whole")
    return served


def needs(bundle: Bundle, *, attention: bool) -> Needs:
    """The frames."""
    return Needs(flow=False)


def load(bundle: Bundle, path: Path, *, attention: bool, limits: Limits, update: Update) -> Stream:
    """The video's header, or the names of its pictures; frames are read by `predict`."""
    return scenes.load(path, limits)


def predict(
    bundle: Bundle,
    loaded: Stream,
    *,
    attention: bool,
    seconds: dict[str, float],
    update: Update,
) -> Moving:
    """The masks as the stage `predict` finds them: from the first frame, state carried on.

    Raises:
        InputError: no frames, frames of several sizes, or probabilities that are not finite.
        ResourceError: the GPU's memory does not hold a frame.
    """
    start = time.perf_counter()
    shares, masks, shape = [], [], (0, 0)
    for mask in _masks(bundle.served, loaded):
        shape = (mask.shape[0], mask.shape[1])
        shares.append(float(mask.mean()))
        if attention:
            masks.append(shown.png(mask.astype(np.uint8) * 255, bilevel=True))
        update("frames", len(shares), loaded.promised)
    seconds["frames"] = time.perf_counter() - start
    return Moving(
        shares=tuple(shares),
        shape=shape,
        fps=loaded.fps,
        masks=tuple(masks) if attention else None,
        stream=loaded if attention else None,
    )


def _masks(served: Served, stream: Stream) -> Iterator[Mask]:
    import torch

    from flowsight.systems.background import predict as scene_inference

    row = served.row
    frames = stream.frames(colour=row.input.colour)
    try:
        for probs in scene_inference.moving_probabilities(served.network, frames, row.input):
            if not np.isfinite(probs).all():
                raise InputError("expected finite probabilities, got others; use another version")
            yield probs >= row.test.threshold
    except torch.OutOfMemoryError:
        raise ResourceError("expected a frame to fit into the GPU's memory, it did not") from None


def write_overlay(found: Moving, path: Path) -> None:
    """A film: what moves is red; its file is read once more."""
    assert found.masks is not None and found.stream is not None  # `predict` was asked for it
    film.write_film(path, _tinted(found.masks, found.stream), found.fps or _FPS)


def _tinted(masks: tuple[bytes, ...], stream: Stream) -> Iterator[np.ndarray]:
    import cv2

    for content, frame in zip(masks, stream.frames(colour=True), strict=True):
        mask = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
        picture = frame[..., ::-1].astype(np.float32)
        seen = np.where(mask[..., None] > 0, 0.4 * picture + 0.6 * _TINT, picture)  # type: ignore[index]
        yield seen.round().astype(np.uint8)
