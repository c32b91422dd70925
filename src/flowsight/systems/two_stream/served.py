"""The networks of two streams at work, as the pipeline's stages use them.

The phase-1 networks, fed with the constant map, give features; the attention networks make maps of
them without a class; each phase-2 network sees the other stream's maps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from flowsight.batches.clips import full_frames
from flowsight.batches.sampling import stack_indices
from flowsight.classifiers import scores, views
from flowsight.classifiers.params import RowParams
from flowsight.contract import Shelf
from flowsight.errors import InputError
from flowsight.serving import restoring
from flowsight.serving.memory import ClipInMemory
from flowsight.serving.result import Bytes, Update
from flowsight.systems.two_stream import network as network_module
from flowsight.systems.two_stream.choosing import STREAMS
from flowsight.systems.two_stream.maps import attention_net, extraction
from flowsight.systems.two_stream.maps.attention_net import AttentionNetwork
from flowsight.systems.two_stream.maps.extraction import Stream

FRAMES_AT_ONCE = 32
"""Whole frames that go through a phase-1 network at once, as in the attention stage."""


@dataclass(frozen=True)
class ServedStream:
    """One stream's networks, in evaluation mode, on one device."""

    row: RowParams
    """Of phase 2: what is scored."""
    phase1_row: RowParams
    """Of phase 1: what attention is extracted from."""
    phase1: nn.Module
    attention: AttentionNetwork
    phase2: nn.Module


@dataclass(frozen=True)
class TwoStream:
    """Both streams."""

    streams: dict[str, ServedStream]
    """`spatial` and `temporal`."""
    weight: float
    """Of the spatial stream's probabilities in the fusion."""

    def with_views(self, num_views: int | None, num_crops: int | None) -> TwoStream:
        """The phase-2 rows with other views, where they are given."""
        streams = {
            name: dataclasses.replace(one, row=views.with_views(one.row, num_views, num_crops))
            for name, one in self.streams.items()
        }
        return dataclasses.replace(self, streams=streams)


def restore(shelf: Shelf) -> TwoStream:
    """Build both streams and fill them, see `systems.System.restore`."""
    description = shelf.description
    weight = float(description["fusion"]["value"])
    if not 0 <= weight <= 1:
        raise ValueError(f"fusion weight {weight}")
    streams = {name: _stream(shelf, description["streams"][name]) for name in STREAMS}
    return TwoStream(streams, weight)


def _stream(shelf: Shelf, name: str) -> ServedStream:
    row = shelf.rows[name]
    before = str(row.start.init)
    # memory formats as the pipeline has them: others may change the last bits
    phase1 = restoring.network(network_module, shelf, before).to(shelf.device).eval()
    phase2 = restoring.network(network_module, shelf, name).to(shelf.device)
    return ServedStream(
        row=row,
        phase1_row=shelf.rows[before],
        phase1=phase1,
        attention=_attention_network(shelf, before).to(shelf.device).eval(),
        phase2=phase2.to(memory_format=torch.channels_last).eval(),
    )


def _attention_network(shelf: Shelf, name: str) -> AttentionNetwork:
    name = f"attention-{name}"
    state = restoring.checked_state(shelf, name)
    path = shelf.folder / f"{name}.pt"
    firsts = [state[key] for key in state if key.endswith(".0.weight")]
    if not firsts or any(weight.ndim != 4 for weight in firsts):
        raise InputError(f"expected an attention network in {path}, got other weights")
    network = attention_net.build(
        in_channels=[weight.shape[1] for weight in firsts],
        hidden_channels=shelf.description["attention"]["hidden_channels"],
    )
    restoring.fill(network, state, path)
    return network


def needed_fields(served: TwoStream, num_frames: int, fps: float) -> set[int]:
    """Flow fields that the views look at: scored stacks, and those that give attention.

    Args:
        served: both streams.
        num_frames: of the video, at least 2.
        fps: of the video.
    """
    spatial, temporal = (served.streams[name] for name in STREAMS)
    explained = stack_indices(
        np.array(views.positions(num_frames, spatial.row)),
        temporal.phase1_row.input.stack_length,
        num_frames - 1,
    )
    return views.items(num_frames, temporal.row, fps) | {int(i) for i in explained.ravel()}


def attention(
    served: TwoStream, loaded: ClipInMemory, *, every: bool, update: Update
) -> dict[str, Bytes]:
    """Maps of both streams: of every frame, or of those that the other stream's views look at.

    Returns:
        Stream -> (T, h, w); zero where not asked for.
    """

    def wanted(stream: str) -> Sequence[int]:
        if every:
            return range(loaded.num_frames)
        return views.positions(loaded.num_frames, served.streams[other(stream)].row)

    return {name: _maps(served.streams[name], loaded, wanted(name), update) for name in STREAMS}


def logits(
    served: TwoStream, loaded: ClipInMemory, maps: Mapping[str, Bytes]
) -> dict[str, npt.NDArray[np.float32]]:
    """(K,) of each stream, which sees the other one's maps."""
    found = {}
    for name, stream in served.streams.items():
        clip = views.clip(loaded, stream.row, maps[other(name)])
        found[name] = scores.clip_logits(stream.phase2, clip, stream.row).numpy()
    return found


def _maps(
    served: ServedStream, loaded: ClipInMemory, indices: Sequence[int], update: Update
) -> Bytes:
    """(T, h, w) maps of a stream; zero where not asked for."""
    row, clip = served.phase1_row, views.clip(loaded, served.row)
    stream = Stream(served.phase1, row.network.target_layers, row.input, row.network.map_channel)
    parts: list[Bytes] = []
    for start in range(0, len(indices), FRAMES_AT_ONCE):
        piece = list(indices[start : start + FRAMES_AT_ONCE])
        x = full_frames(clip, row.input, piece, map_channel=row.network.map_channel)
        found = extraction.predict(stream, served.attention, x.to(stream.device))
        parts.append(extraction.quantise(found))
        update(f"{row.input.modality} attention", start + len(piece), len(indices))
    maps = np.concatenate(parts)
    every = np.zeros((clip.num_frames, *maps.shape[1:]), np.uint8)
    every[np.asarray(indices)] = maps
    return every


def other(stream: str) -> str:
    """The stream that is not this one."""
    return STREAMS[1 - STREAMS.index(stream)]
