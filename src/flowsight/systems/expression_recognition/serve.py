"""A network that says which expression a face shows: see `contract.System` for what is here.

Until faces can be found in a picture, the picture is the face: a tight crop as the data set has it.
What is told is the expression that is shown, never what somebody feels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from flowsight import contract, files
from flowsight.contract import Described, Shelf, Source
from flowsight.errors import InputError
from flowsight.metrics import classification
from flowsight.serving import images, result, shown
from flowsight.serving.images import ImageInMemory
from flowsight.serving.memory import Limits, Needs
from flowsight.serving.result import Update
from flowsight.systems.expression_recognition.params import SYSTEM, Row

if TYPE_CHECKING:
    from flowsight.params.config import Params
    from flowsight.serving.bundle import Bundle
    from flowsight.systems.expression_recognition.network import Expressions

ROW = Row
SUBJECT = "labelled_images"
INPUT = "image"
REQUEST = "map"
TOP = True
OUTPUTS: Mapping[str, str] = {
    "label": "string",
    "score": "double",
    "classes": "string[]",
    "scores": "double[]",
    "probabilities": "any",
    "map": "string",
}
COLUMNS = ("expression shown", "probability")
ENDINGS = (".png",)
_SHOWN_PX = 240


@dataclass(frozen=True)
class Served:
    """The network, in evaluation mode, on its device."""

    row: Row
    network: Expressions
    classes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Expression:
    """Which expression a face shows. K classes."""

    classes: tuple[str, ...]
    probs: npt.NDArray[np.float64]
    """(K,)."""
    levels: npt.NDArray[np.uint8] | None
    """(H, W), where the network looked for the best class, 0 ... 255, where it was asked for."""
    pixels: npt.NDArray[np.uint8] | None
    """(H, W, 3) RGB, the image, where a picture was asked for."""
    image: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    def named(self, name: str, seconds: dict[str, float]) -> Self:
        """See `Result`."""
        return dataclasses.replace(self, image=name, seconds=seconds)

    def top(self, count: int) -> list[tuple[str, float]]:
        """The best classes and their probabilities, best first; among equals the first."""
        best = np.argsort(-self.probs, kind="stable")[:count]
        return [(self.classes[k], float(self.probs[k])) for k in best]

    def record(self, count: int) -> dict[str, Any]:
        """The best classes, all probabilities, times."""
        best = self.top(count)
        return {
            "image": self.image,
            "label": best[0][0],
            "score": best[0][1],
            "classes": [name for name, _ in best],
            "scores": [score for _, score in best],
            "probabilities": dict(zip(self.classes, self.probs.tolist(), strict=True)),
            "seconds": {part: round(sec, 4) for part, sec in self.seconds.items()},
        }

    def requested(self) -> dict[str, Any]:
        """The map as base64 of a PNG of grey levels."""
        return {"map": None if self.levels is None else shown.text(shown.png(self.levels))}

    def lines(self, count: int) -> list[tuple[str, ...]]:
        """A line a class."""
        return [(name, f"{score:.1%}") for name, score in self.top(count)]

    def light(self) -> Self:
        """Without image and map."""
        return dataclasses.replace(self, levels=None, pixels=None)

    def save_masks(self, folder: Path, name: str) -> Path:
        """There are none.

        Raises:
            InputError: always.
        """
        raise InputError("expected saliency or background for --masks, got a system of classes")


def data(params: Params) -> contract.Data:
    """Faces with a class."""
    block = params.system(SYSTEM)
    return contract.Data(block.data.name, block.data.split_ids, block.rows)


def describe(params: Params, split: str, source: Source) -> Described:
    """One row, see `Block.served_row`, and the classes in its own order."""
    import pandas as pd

    block = params.system(SYSTEM)
    row, name = block.served_row, block.data.name
    path = source.root / "data/items" / SYSTEM / name / "classes.csv"
    if not path.is_file():
        raise InputError(f"expected the classes in {path}, found no such file; run `dvc repro`")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    described = {"row": row, "classes": table["label"].tolist()}
    return Described(described, (row,), {row: f"checkpoints/{name}/{row}-{split}"})


def selection(description: Mapping[str, Any]) -> dict[str, str]:
    """The served row."""
    return {"row": description["row"]}


def tags(description: Mapping[str, Any]) -> dict[str, str]:
    """Which row, on which backbone, begun how, for how many classes."""
    row = description["rows"][description["row"]]
    start = row["start"].get("init") or row["start"].get("weights") or "scratch"
    return {
        "row": description["row"],
        "backbone": row["network"]["backbone"],
        "start": start,
        "num_classes": str(len(description["classes"])),
    }


def restore(shelf: Shelf) -> Served:
    """The row's network."""
    from flowsight.classifiers import networks
    from flowsight.serving import restoring
    from flowsight.systems.expression_recognition import predict as predicting

    name, classes = shelf.description["row"], tuple(shelf.description["classes"])
    row: Row = shelf.rows[name]
    network = predicting.built(row, len(classes))
    restoring.fill(network, restoring.checked_state(shelf, name), shelf.folder / f"{name}.pt")
    network = network.to(shelf.device).to(memory_format=networks.memory_format(network)).eval()
    return Served(row, network, classes)


def with_views(served: Served, num_views: int | None, num_crops: int | None) -> Served:
    """The same with another number of crops.

    Raises:
        InputError: views of an image, or crops that cannot be cut.
    """
    if num_views is not None:
        raise InputError("expected no views of an image: it has crops only")
    if num_crops is None:
        return served
    if num_crops not in (1, 10):
        raise InputError(f"expected 1 or 10 crops, got {num_crops}")
    test = dataclasses.replace(served.row.test, num_crops=num_crops)
    return dataclasses.replace(served, row=dataclasses.replace(served.row, test=test))


def needs(bundle: Bundle, *, attention: bool) -> Needs:
    """The image."""
    return Needs(flow=False)


def load(
    bundle: Bundle, path: Path, *, attention: bool, limits: Limits, update: Update
) -> ImageInMemory:
    """The image, at its own size."""
    return images.load(path, limits)


def predict(
    bundle: Bundle,
    loaded: ImageInMemory,
    *,
    attention: bool,
    seconds: dict[str, float],
    update: Update,
) -> Expression:
    """Probabilities as the stage `predict` has them.

    Raises:
        InputError: logits that are not finite.
    """
    from flowsight.systems.expression_recognition import predict as predicting

    served: Served = bundle.served
    with result.timed(seconds, "scores"):
        logits = predicting.image_logits(served.network, [loaded.pixels], served.row)
    if not np.isfinite(logits).all():
        raise InputError("expected finite logits of the image, got others; use another version")
    probs = classification.softmax(logits)[0]
    levels = None
    if attention:
        with result.timed(seconds, "attention"):
            levels = explain(served, loaded.pixels, int(probs.argmax()))
    update("image", 1, 1)
    pixels = loaded.pixels if attention else None
    return Expression(classes=served.classes, probs=probs, levels=levels, pixels=pixels)


def explain(served: Served, pixels: npt.NDArray[np.uint8], label: int) -> npt.NDArray[np.uint8]:
    """Where the network looks for a class: Grad-CAM at the last convolution.

    Args:
        served: the network.
        pixels: (H, W, 3) RGB.
        label: the class.

    Returns:
        (H, W) of 0 ... 255; what the centre crop leaves out is 0.
    """
    from flowsight.systems.expression_recognition import predict as predicting

    return predicting.attention_map(served.network, pixels, served.row, label)


def write_overlay(found: Expression, path: Path) -> None:
    """A picture: the face with the map over it."""
    import cv2

    from flowsight.video import heat

    assert found.pixels is not None and found.levels is not None  # `predict` was asked for them
    picture = heat.overlay(found.pixels, found.levels)
    zoom = max(1, round(_SHOWN_PX / picture.shape[0]))
    picture = np.repeat(np.repeat(picture, zoom, axis=0), zoom, axis=1)
    with files.atomic_file(path) as temporary:
        temporary.write_bytes(shown.png(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)))
