"""A network over images that finds what is salient: see `systems.System` for what is here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from flowsight import files
from flowsight.contract import Data, Described, Shelf, Source, chosen_row
from flowsight.errors import InputError
from flowsight.params.config import Params
from flowsight.serving import images, result, shown
from flowsight.serving.images import ImageInMemory
from flowsight.serving.memory import Limits, Needs
from flowsight.serving.result import Update
from flowsight.systems.saliency.params import SYSTEM, ImageRowParams

if TYPE_CHECKING:
    from torch import nn

    from flowsight.serving.bundle import Bundle

ROW = ImageRowParams
SUBJECT = "images"
INPUT = "image"
REQUEST = "map"
TOP = False
OUTPUTS: Mapping[str, str] = {
    "width": "long",
    "height": "long",
    "salient_share": "double",
    "mask": "string",
    "map": "string",
}
COLUMNS = ("size, px", "salient")
ENDINGS = (".png",)
MAX_SEEN_PX = 4_000_000
"""Of an image as the network sees it, shrunk or not: it takes about a kilobyte a pixel."""
_TINT = np.array([255, 40, 40], np.float32)


@dataclass(frozen=True)
class Served:
    """The network, in evaluation mode, on its device."""

    row: ImageRowParams
    network: nn.Module


@dataclass(frozen=True, kw_only=True, eq=False)
class Salient:
    """What is salient in an image."""

    mask: npt.NDArray[np.bool_]
    """(H, W), of the image's size."""
    levels: npt.NDArray[np.uint8] | None
    """(H, W), probability of being salient as 0 ... 255, where it was asked for."""
    pixels: npt.NDArray[np.uint8] | None
    """(H, W, 3) RGB, the image, where a picture was asked for."""
    image: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    def named(self, name: str, seconds: dict[str, float]) -> Self:
        """See `Result`."""
        return dataclasses.replace(self, image=name, seconds=seconds)

    def record(self, count: int) -> dict[str, Any]:
        """Size in px, share of the pixels that are salient, and the mask as base64 of a PNG."""
        height, width = self.mask.shape
        return {
            "image": self.image,
            "width": width,
            "height": height,
            "salient_share": float(self.mask.mean()),
            "mask": shown.text(self._png()),
            "seconds": {part: round(sec, 4) for part, sec in self.seconds.items()},
        }

    def requested(self) -> dict[str, Any]:
        """The map as base64 of a PNG of grey levels."""
        return {"map": None if self.levels is None else shown.text(shown.png(self.levels))}

    def lines(self, count: int) -> list[tuple[str, ...]]:
        """One line."""
        height, width = self.mask.shape
        return [(f"{width} x {height}", f"{self.mask.mean():.1%}")]

    def light(self) -> Self:
        """Without image and map."""
        return dataclasses.replace(self, levels=None, pixels=None)

    def save_masks(self, folder: Path, name: str) -> Path:
        """A PNG of black and white (salient), of the image's size."""
        path = folder / f"{name}.png"
        with files.atomic_file(path) as temporary:
            temporary.write_bytes(self._png())
        return path

    def _png(self) -> bytes:
        return shown.png(self.mask.astype(np.uint8) * 255, bilevel=True)


def served_row(params: Params) -> str:
    """The row that is served: the first one with fewer kernels, else the first.

    In every recipe that is the network the paper ends with, beside which the base and its other
    plans stand; what a study adds comes behind it. `systems.saliency.serve` names another.

    Raises:
        InputError: the system does not run, or has no row of that name.
    """
    rows = params.system(SYSTEM).rows
    if params.system(SYSTEM).serve is not None:
        return chosen_row(params.system(SYSTEM).serve, rows, SYSTEM)
    return min(rows, key=lambda name: rows[name].start.slim is None)


def data(params: Params) -> Data:
    """Images with masks."""
    block = params.system(SYSTEM)
    return Data(params.images.name, params.images.split_ids, block.rows)


def describe(params: Params, split: str, source: Source) -> Described:
    """One row, see `served_row`, and the plan that says how many of its kernels are left."""
    row, block = served_row(params), params.system(SYSTEM)
    own = {"row": row, "plan": block.plan_of(block.row(row))}
    return Described(own, (row,), {row: f"checkpoints/{params.images.name}/{row}-{split}"})


def selection(description: Mapping[str, Any]) -> dict[str, str]:
    """The served row."""
    return {"row": description["row"]}


def tags(description: Mapping[str, Any]) -> dict[str, str]:
    """Which row, on which backbone, and what was cut (layer=share that stays)."""
    row = description["rows"][description["row"]]
    plan = ", ".join(f"{layer}={share:g}" for layer, share in description["plan"].items())
    return {
        "row": description["row"],
        "backbone": row["network"]["backbone"],
        "plan": plan or "nothing cut",
    }


def restore(shelf: Shelf) -> Served:
    """The row's network, of the size that the plan gives it."""
    from flowsight.classifiers import networks
    from flowsight.nn import slimming
    from flowsight.serving import restoring
    from flowsight.systems.saliency import networks as saliency_networks

    name, plan = shelf.description["row"], shelf.description["plan"]
    row: ImageRowParams = shelf.rows[name]
    network, state = saliency_networks.build(row), restoring.checked_state(shelf, name)
    if plan:
        slimming.reshape(network, state)
    restoring.fill(network, state, shelf.folder / f"{name}.pt")
    network = network.to(shelf.device)
    return Served(row, network.to(memory_format=networks.memory_format(network)).eval())


def with_views(served: Served, num_views: int | None, num_crops: int | None) -> Served:
    """Itself: an image is seen once, as a whole.

    Raises:
        InputError: views are asked for.
    """
    if num_views is not None or num_crops is not None:
        raise InputError("expected no views or crops of an image: it is seen once, as a whole")
    return served


def needs(bundle: Bundle, *, attention: bool) -> Needs:
    """The image."""
    return Needs(flow=False)


def load(
    bundle: Bundle, path: Path, *, attention: bool, limits: Limits, update: Update
) -> ImageInMemory:
    """The image, at its own size."""
    loaded = images.load(path, limits)
    height, width = loaded.pixels.shape[:2]
    longest = bundle.served.row.input.long_px
    factor = 1.0 if longest is None else min(1.0, longest / max(height, width))
    if height * width * factor**2 > MAX_SEEN_PX:
        raise InputError(
            f"expected an image of at most {MAX_SEEN_PX:,} pixels, got "
            f"{width} x {height}; shrink it"
        )
    return loaded


def predict(
    bundle: Bundle,
    loaded: ImageInMemory,
    *,
    attention: bool,
    seconds: dict[str, float],
    update: Update,
) -> Salient:
    """The mask as the stage `predict` finds it: where "salient" has the higher score.

    Raises:
        InputError: scores that are not finite.
        ResourceError: the GPU's memory does not hold the image.
    """
    import torch

    from flowsight.systems.saliency import predict as saliency_inference

    served: Served = bundle.served
    with result.timed(seconds, "scores"):
        scores = saliency_inference.image_scores(served.network, loaded.pixels, served.row.input)
    if not torch.isfinite(scores).all():
        raise InputError("expected finite scores of the image, got others; use another version")
    levels = None
    if attention:
        probability = scores.double().softmax(dim=0)[1]
        levels = (255 * probability).round().to(torch.uint8).numpy()
    update("image", 1, 1)
    mask = (scores[1] > scores[0]).numpy()
    return Salient(mask=mask, levels=levels, pixels=loaded.pixels if attention else None)


def write_overlay(found: Salient, path: Path) -> None:
    """A picture: what is not salient in grey, what is in red."""
    import cv2

    assert found.pixels is not None  # `predict` was asked for it
    grey = cv2.cvtColor(found.pixels, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, axis=2)
    tinted = 0.5 * found.pixels + 0.5 * _TINT
    seen = np.where(found.mask[..., None], tinted, grey * 0.6 + 80).round().astype(np.uint8)
    with files.atomic_file(path) as temporary:
        temporary.write_bytes(shown.png(cv2.cvtColor(seen, cv2.COLOR_RGB2BGR)))
