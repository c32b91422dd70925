"""One network over clips, with attention in its blocks: see `systems.System` for what is here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowsight.classifiers import serve
from flowsight.classifiers.params import RowParams
from flowsight.contract import Data, Described, Shelf, Source, chosen_row
from flowsight.errors import InputError
from flowsight.params.config import Params
from flowsight.serving import result
from flowsight.serving.memory import ClipInMemory, Limits, Needs
from flowsight.serving.result import Bytes, Prediction, Update
from flowsight.systems.residual3d.params import SYSTEM
from flowsight.video import film

if TYPE_CHECKING:
    from torch import nn

    from flowsight.serving.bundle import Bundle
    from flowsight.systems.residual3d.network import SpatialAttention

NETWORK = "network"
"""What its probabilities, logits and maps are called: there is only one."""
ROW = RowParams
SUBJECT = "clips"
INPUT = "video"
REQUEST = "attention"
TOP = True
OUTPUTS = result.OUTPUTS
COLUMNS = ("class", "share")
ENDINGS = film.ENDINGS


@dataclasses.dataclass(frozen=True)
class Served:
    """The network, in evaluation mode, on its device."""

    name: str
    """Of the row."""
    row: RowParams
    network: nn.Module
    module: SpatialAttention | None
    """Whose weights are shown; None: the network has no spatial attention."""


def served_row(params: Params) -> str:
    """The row that is served: the first one with attention, frames before flow.

    In every recipe that is the network the paper proposes, beside which baselines, other families
    and other inputs stand; what a study adds comes behind it. Where no row has attention, the first
    one by the same order. `systems.residual3d.serve` names another.

    Raises:
        InputError: no row of the system has clips as its input, or none of them has that name.
    """
    rows = {n: r for n, r in params.system(SYSTEM).rows.items() if r.input.clip_length is not None}
    if not rows:
        raise InputError(f"expected a row of {SYSTEM} with input.clip_length, got none")
    if params.system(SYSTEM).serve is not None:
        return chosen_row(params.system(SYSTEM).serve, rows, SYSTEM)
    return min(
        rows,
        key=lambda name: (
            rows[name].network.attention is None,
            rows[name].input.modality != "rgb",
        ),
    )


def data(params: Params) -> Data:
    """Clips."""
    return serve.data(params, SYSTEM)


def describe(params: Params, split: str, source: Source) -> Described:
    """One row, see `served_row`."""
    row = served_row(params)
    folder = f"checkpoints/{params.dataset.name}/{row}-{split}"
    own = {**serve.described(params, source.root), "row": row}
    return Described(own, (row,), {row: folder})


def selection(description: Mapping[str, Any]) -> dict[str, str]:
    """The served row."""
    return {"row": description["row"]}


def tags(description: Mapping[str, Any]) -> dict[str, str]:
    """Which row, and which network over what."""
    row = description["rows"][description["row"]]
    return {
        "row": description["row"],
        "backbone": row["network"]["backbone"],
        "modality": row["input"]["modality"],
    }


def restore(shelf: Shelf) -> Served:
    """The row's network, in the memory format that the pipeline predicts with."""
    from flowsight.classifiers import networks
    from flowsight.serving import restoring
    from flowsight.systems.residual3d import network as residual3d

    name = shelf.description["row"]
    row = shelf.rows[name]
    network = restoring.network(residual3d, shelf, name).to(shelf.device)
    network = network.to(memory_format=networks.memory_format(network)).eval()
    module = None
    if row.network.attention is not None and row.network.attention.spatial:
        # the one whose maps the stage spatial_attention writes
        module = residual3d.spatial_attentions(network, row.network.target_layers[0])[-1]
    return Served(name, row, network, module)


def with_views(served: Served, num_views: int | None, num_crops: int | None) -> Served:
    """Other views of the row."""
    from flowsight.classifiers import views

    return dataclasses.replace(served, row=views.with_views(served.row, num_views, num_crops))


def needs(bundle: Bundle, *, attention: bool) -> Needs:
    """Frames only, or for a row over flow the fields of its views; of all frames for maps."""
    served: Served = bundle.served
    if attention and served.module is None:
        raise InputError(
            f"expected a network with spatial attention to show, got row {served.name}, which has "
            "none; ask without the maps"
        )
    if served.row.input.modality == "rgb":
        return Needs(flow=False)
    return Needs(flow=True, fields=None if attention else partial(_fields, served.row))


def _fields(row: RowParams, num_frames: int, fps: float) -> set[int]:
    from flowsight.classifiers import views

    return views.items(num_frames, row, fps)


def load(
    bundle: Bundle, path: Path, *, attention: bool, limits: Limits, update: Update
) -> ClipInMemory:
    """The video with what `needs` says."""
    return serve.load(bundle, path, needs(bundle, attention=attention), limits, update)


def predict(
    bundle: Bundle,
    loaded: ClipInMemory,
    *,
    attention: bool,
    seconds: dict[str, float],
    update: Update,
) -> Prediction:
    """Probabilities of the network; its spatial attention."""
    from flowsight.classifiers import scores, views
    from flowsight.metrics import classification

    served: Served = bundle.served
    clip = views.clip(loaded, served.row)
    with result.timed(seconds, "scores"):
        logits = scores.clip_logits(served.network, clip, served.row).numpy()
    maps = None
    if attention:
        with result.timed(seconds, "attention"):
            maps = {NETWORK: _maps(served, loaded)}
            update("attention", loaded.num_frames, loaded.num_frames)
    return Prediction(
        classes=bundle.classes,
        probs={NETWORK: classification.softmax(logits)},
        main=NETWORK,
        logits={NETWORK: logits},
        num_frames=loaded.num_frames,
        duration_sec=loaded.duration_sec,
        attention=maps,
        clip=loaded if attention else None,
    )


def write_overlay(found: Prediction, path: Path) -> None:
    """A film of what it looked at."""
    from flowsight.classifiers import film as overlay

    overlay.write_overlay(found, path)


def _maps(served: Served, loaded: ClipInMemory) -> Bytes:
    """(T, h, w) weights of the spatial attention, as the stage spatial_attention writes them."""
    from flowsight.classifiers import views
    from flowsight.systems.residual3d import spatial_attention

    assert served.module is not None  # `needs` has looked
    clip = views.clip(loaded, served.row)
    found = spatial_attention.clip_maps(served.network, served.module, clip, served.row.input)
    maps: Bytes = (spatial_attention.stretched(found) * 255).round().astype(np.uint8)
    return maps
