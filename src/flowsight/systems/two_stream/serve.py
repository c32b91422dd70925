"""Two streams that see each other's attention, fused: see `systems.System` for what is here.

Six networks are served: phase 1, attention and phase 2 of each stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsight.classifiers import serve
from flowsight.classifiers.params import RowParams
from flowsight.contract import Data, Described, Shelf, Source
from flowsight.params.config import Params
from flowsight.serving import result
from flowsight.serving.memory import ClipInMemory, Limits, Needs
from flowsight.serving.result import Prediction, Update
from flowsight.systems.two_stream import choosing
from flowsight.systems.two_stream.choosing import STREAMS
from flowsight.systems.two_stream.params import SYSTEM
from flowsight.video import film

if TYPE_CHECKING:
    from flowsight.serving.bundle import Bundle
    from flowsight.systems.two_stream.served import TwoStream

ROW = RowParams
SUBJECT = "clips"
INPUT = "video"
REQUEST = "attention"
TOP = True
OUTPUTS = result.OUTPUTS
COLUMNS = ("class", "fused", *STREAMS)
ENDINGS = film.ENDINGS


def data(params: Params) -> Data:
    """Clips."""
    return serve.data(params, SYSTEM)


def describe(params: Params, split: str, source: Source) -> Described:
    """The first fusion of rows that use each other's maps, see `choosing.served_fusion`."""
    name, fusion = choosing.served_fusion(params)
    checkpoints = choosing.checkpoints(params, fusion, split)
    weight = choosing.weight(source, SYSTEM, name, split, params)
    own = {
        **serve.described(params, source.root),
        "attention": {"hidden_channels": params.system(SYSTEM).attention.hidden_channels},
        "fusion": {"name": name, "method": fusion.method, **asdict(weight)},
        "streams": {stream: getattr(fusion, stream) for stream in STREAMS},
    }
    return Described(own, tuple(choosing.rows_of(fusion, params)), checkpoints)


def selection(description: Mapping[str, Any]) -> dict[str, str]:
    """The fused stream of the served fusion."""
    return {"fusion": description["fusion"]["name"], "stream": "fused"}


def tags(description: Mapping[str, Any]) -> dict[str, str]:
    """Which fusion, and the spatial stream's weight in it."""
    fusion = description["fusion"]
    return {"fusion": fusion["name"], "fusion_weight": f"{fusion['value']:g}"}


def restore(shelf: Shelf) -> TwoStream:
    """The networks of both streams."""
    from flowsight.systems.two_stream import served as networks

    return networks.restore(shelf)


def with_views(served: TwoStream, num_views: int | None, num_crops: int | None) -> TwoStream:
    """Other views of both phase-2 rows."""
    return served.with_views(num_views, num_crops)


def needs(bundle: Bundle, *, attention: bool) -> Needs:
    """Flow of the views; for the maps of every frame all of it."""
    from flowsight.systems.two_stream import served as networks

    fields = None if attention else partial(networks.needed_fields, bundle.served)
    return Needs(flow=True, fields=fields)


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
    """Probabilities of both streams and fused; maps of both streams."""
    from flowsight.metrics import classification
    from flowsight.metrics.fusion import fuse
    from flowsight.systems.two_stream import served as networks

    served: TwoStream = bundle.served
    with result.timed(seconds, "attention"):
        maps = networks.attention(served, loaded, every=attention, update=update)
    with result.timed(seconds, "scores"):
        logits = networks.logits(served, loaded, maps)
    probs = {name: classification.softmax(values) for name, values in logits.items()}
    probs["fused"] = fuse(probs["spatial"], probs["temporal"], served.weight)
    return Prediction(
        classes=bundle.classes,
        probs=probs,
        main="fused",
        logits=logits,
        num_frames=loaded.num_frames,
        duration_sec=loaded.duration_sec,
        attention=maps if attention else None,
        titles={"temporal": "motion"},
        clip=loaded if attention else None,
    )


def write_overlay(found: Prediction, path: Path) -> None:
    """A film of what both looked at; the spatial stream's maps on the left."""
    from flowsight.classifiers import film as overlay

    overlay.write_overlay(found, path)
