"""The attention stage: maps of every clip by one phase-1 network.

Training clips: Grad-CAM of their own class. Validation and test clips: the attention network, which
never learns a label; their labels are taken away before anything else sees the clips.

All maps come from whole (uncropped) frames, with the map channel at its constant or, where two
streams are trained in turn, with the maps that the network was trained with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from flowsight.batches.clips import UNKNOWN, Clip, full_frames, load_clips
from flowsight.batches.params import InputParams
from flowsight.classifiers import networks
from flowsight.classifiers.params import RowParams
from flowsight.errors import InputError
from flowsight.files import atomic_dir, write_csv
from flowsight.nn import checkpoint as checkpoints
from flowsight.nn import seeding
from flowsight.nn.gradcam import explain, layer_features, normalise
from flowsight.progress import track
from flowsight.systems.two_stream import network as network_module
from flowsight.systems.two_stream.maps import map_files
from flowsight.systems.two_stream.maps.attention_net import AttentionNetwork
from flowsight.systems.two_stream.maps.key_frames import EVERY_FRAME, KeyFrames
from flowsight.systems.two_stream.maps.learning import Example, Learnt, learn
from flowsight.systems.two_stream.maps.map_files import evenly, quantise
from flowsight.systems.two_stream.params import AttentionParams

_FRAMES_AT_ONCE = 32
_EXAMPLE_BYTES = 2 << 30  # features kept for learning; more clips get fewer frames each


@dataclass(frozen=True)
class Stream:
    """A trained network and what it takes to show it a clip."""

    network: nn.Module
    layers: Sequence[str]
    """Target layers."""
    inputs: InputParams
    map_channel: bool

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device


def extract(
    *,
    name: str,
    row: RowParams,
    attention: AttentionParams,
    manifest: Path,
    split: Path,
    packs: Path,
    checkpoint: Path,
    out: Path,
    network_out: Path,
    seed: int,
    threads: int,
    maps: Path | None = None,
    keys: KeyFrames = EVERY_FRAME,
) -> None:
    """Write the attention maps of every clip of a split, and the network that made some of them.

    Args:
        name: the row's name, kept in the maps' meta.
        row: the phase-1 row whose network is explained.
        attention: numbers of the attention network.
        manifest: folder with `clips.csv` and `classes.csv`.
        split: `<split_id>.csv`.
        packs: folder of frame or flow packs, as the row's modality asks.
        checkpoint: folder with the row's `model.pt`.
        out: folder for `<clip_id>.zip` (`maps.npy` uint8 (T, h, w), index = frame index) and
            `pictures/`.
        network_out: folder for the attention network's `model.pt` and `history.csv`.
        seed: of the attention network.
        threads: of torch.
        maps: what the network's own map channel sees; None: its constant.
        keys: which frames go through the network; the maps of the others are filled in.

    Raises:
        InputError: no training clip, or a checkpoint of another network.
    """
    clips, classes = load_clips(manifest, split, packs, maps)
    labelled = training_clips(clips, split)
    unlabelled = [without_label(clip) for clip in clips if clip.subset != "train"]
    stream = load_stream(row, len(classes), checkpoint)
    meta: dict[str, Any] = {"layers": list(stream.layers), "row": name}
    if keys.every > 1:
        meta["key_every"] = keys.every
    with (
        seeding.reproducible(threads),
        atomic_dir(network_out) as network_folder,
        atomic_dir(out) as folder,
    ):
        examples = explain_clips(
            stream, labelled, folder, meta, max_frames=attention.max_frames, keys=keys
        )
        learnt = _learn(examples, attention, seed, stream.device)
        checkpoints.save(learnt.network.state_dict(), network_folder / "model.pt")
        write_csv(pd.DataFrame(learnt.history), network_folder / "history.csv")
        predict_clips(stream, learnt.network, unlabelled, folder, meta, keys)
        draw_some(unlabelled or labelled, row, attention.num_pictures, folder)


def training_clips(clips: Sequence[Clip], split: Path) -> list[Clip]:
    """The clips to learn from.

    Raises:
        InputError: there is none.
    """
    found = [clip for clip in clips if clip.subset == "train"]
    if not found:
        raise InputError(f"expected training clips in {split}, found none; check the splits stage")
    return found


def draw_some(clips: Sequence[Clip], row: RowParams, count: int, folder: Path) -> None:
    """Pictures of a few clips' maps; of test clips, if there are any."""
    shown = [clip for clip in clips if clip.subset == "test"] or list(clips)
    for i in evenly(len(shown), count):
        map_files.draw(shown[i], row.input.modality, folder)


def without_label(clip: Clip) -> Clip:
    """The same clip with its class taken away."""
    return dataclasses.replace(clip, label=UNKNOWN)


def load_stream(row: RowParams, num_classes: int, checkpoint: Path) -> Stream:
    """The row's trained network in eval mode, on the GPU if there is one.

    Raises:
        InputError: the checkpoint is broken or of another network.
    """
    network = networks.build(network_module, row, num_classes)
    checkpoints.restore(network, checkpoint / "model.pt")
    network = network.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return Stream(network, row.network.target_layers, row.input, row.network.map_channel)


def explain_clips(
    stream: Stream,
    clips: Sequence[Clip],
    folder: Path,
    meta: Mapping[str, Any],
    *,
    max_frames: int,
    keys: KeyFrames = EVERY_FRAME,
) -> list[Example]:
    """Write Grad-CAM maps of labelled clips, each explaining the clip's own class.

    Returns:
        Frames to learn from: at most `max_frames` of each clip, evenly drawn (of the key frames),
        fewer where the features of all would pass 2 GiB.
    """
    per_clip = frames_to_learn(stream, clips, max_frames)
    examples: list[Example] = []
    for clip, count in zip(track(clips, "Grad-CAM"), per_clip, strict=True):
        chosen = keys.indices(clip.num_frames)
        kept = {chosen[i] for i in evenly(len(chosen), count)}
        maps = []
        for indices, x in read_batches(stream, clip, chosen):
            classes = torch.full((len(x),), clip.label, device=x.device)
            found = explain(stream.network, x, classes, stream.layers)
            maps.append(found.maps.cpu())
            for i in (i for i, frame in enumerate(indices) if frame in kept):
                features = [feature[i].cpu().clone() for feature in found.features]
                examples.append(Example(clip.clip_id, features, maps[-1][i]))
        map_files.write(clip, _maps_of(clip, maps, keys), folder, {**meta, "source": "grad_cam"})
    return examples


def _learn(
    examples: Sequence[Example], attention: AttentionParams, seed: int, device: torch.device
) -> Learnt:
    return learn(
        examples,
        hidden_channels=attention.hidden_channels,
        epochs=attention.epochs,
        batch_size=attention.batch_size,
        lr=attention.lr,
        val_share=attention.val_share,
        seed=seed,
        device=device,
    )


def frames_to_learn(stream: Stream, clips: Sequence[Clip], max_frames: int) -> list[int]:
    """How many frames of each clip fit into 2 GiB of features; 0 for some if clips are many."""
    probe = full_frames(clips[0], stream.inputs, [0], map_channel=stream.map_channel)
    features = layer_features(stream.network, probe.to(stream.device), stream.layers)
    budget = max(_EXAMPLE_BYTES // sum(feature.nbytes for feature in features), 1)
    if budget >= len(clips):
        return [min(max_frames, budget // len(clips))] * len(clips)
    chosen = set(evenly(len(clips), budget))
    return [int(i in chosen) for i in range(len(clips))]


def predict_clips(
    stream: Stream,
    attention_network: AttentionNetwork,
    clips: Sequence[Clip],
    folder: Path,
    meta: Mapping[str, Any],
    keys: KeyFrames = EVERY_FRAME,
) -> None:
    """Write the attention network's maps of clips whose class is unknown.

    Raises:
        ValueError: a clip carries a label (see `without_label`).
    """
    for clip in track(clips, "attention maps"):
        if clip.label != UNKNOWN:
            raise ValueError(f"expected {clip.clip_id} without its label; use without_label")
        chosen = keys.indices(clip.num_frames)
        maps = [
            predict(stream, attention_network, x) for _, x in read_batches(stream, clip, chosen)
        ]
        source = {"source": "attention_network"}
        map_files.write(clip, _maps_of(clip, maps, keys), folder, {**meta, **source})


@torch.no_grad()
def predict(stream: Stream, attention_network: AttentionNetwork, x: Tensor) -> Tensor:
    """Attention maps without a class.

    Each is divided by its maximum, as Grad-CAM's are, so phase 2 meets one kind of map.

    Args:
        stream: the phase-1 network.
        attention_network: trained on its features, in eval mode.
        x: (B, C, H, W) network input on the stream's device.

    Returns:
        (B, h, w) float in [0, 1], on the CPU.
    """
    features = layer_features(stream.network, x, stream.layers)
    return normalise(attention_network(features)).cpu()


def _maps_of(clip: Clip, maps: Sequence[Tensor], keys: KeyFrames) -> npt.NDArray[np.uint8]:
    """Maps of all frames, as stored, from the pieces of the key frames' maps."""
    found = keys.fill(torch.cat(list(maps)).numpy(), clip.num_frames, clip.pack)
    return quantise(torch.from_numpy(found))


def read_batches(
    stream: Stream, clip: Clip, indices: Sequence[int]
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Frame indices and network input, piece by piece; the next piece is read meanwhile."""

    def read(piece: Sequence[int]) -> Tensor:
        return full_frames(clip, stream.inputs, piece, map_channel=stream.map_channel)

    starts = range(0, len(indices), _FRAMES_AT_ONCE)
    pieces = [indices[start : start + _FRAMES_AT_ONCE] for start in starts]
    with ThreadPoolExecutor(max_workers=1) as reader:
        waiting = reader.submit(read, pieces[0])
        for piece, following in zip(pieces, [*pieces[1:], None], strict=True):
            x = waiting.result()
            if following is not None:
                waiting = reader.submit(read, following)
            yield piece, x.to(stream.device)
