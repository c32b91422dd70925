"""`explains.through`: maps of every clip by an attention network that never saw Grad-CAM.

What it writes is what the attention stage writes, so phase 2 reads one or the other. All maps, also
those of training clips, come from the attention network: no map knows its clip's label.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from flowsight.batches.clips import Clip, full_frames, load_clips
from flowsight.classifiers.params import RowParams
from flowsight.files import atomic_dir, write_csv
from flowsight.nn import checkpoint as checkpoints
from flowsight.nn import seeding
from flowsight.nn.gradcam import layer_features
from flowsight.progress import track
from flowsight.systems.two_stream.maps import learning
from flowsight.systems.two_stream.maps.extraction import (
    Stream,
    draw_some,
    frames_to_learn,
    load_stream,
    predict_clips,
    read_batches,
    training_clips,
    without_label,
)
from flowsight.systems.two_stream.maps.gating import GatedFrame, GatedLoss
from flowsight.systems.two_stream.maps.learning import Learnt
from flowsight.systems.two_stream.maps.map_files import evenly
from flowsight.systems.two_stream.params import AttentionParams


def extract_learnt(
    *,
    name: str,
    row: RowParams,
    through: RowParams,
    area_weight: float,
    attention: AttentionParams,
    manifest: Path,
    split: Path,
    packs: Path,
    through_packs: Path,
    checkpoint: Path,
    through_checkpoint: Path,
    out: Path,
    network_out: Path,
    seed: int,
    threads: int,
) -> None:
    """Learn an attention network through the other stream's loss; write every clip's maps.

    Args:
        name: the row's name, kept in the maps' meta.
        row: whose network's features the maps are made from.
        through: the other stream's row, whose network is the teacher.
        area_weight: see `gating`.
        attention: numbers of the attention network.
        manifest: folder with `clips.csv` and `classes.csv`.
        split: `<split_id>.csv`.
        packs, through_packs: folders of packs of the two streams.
        checkpoint, through_checkpoint: folders with the two networks' `model.pt`.
        out, network_out: as for `extraction.extract`.
        seed: of the attention network.
        threads: of torch.

    Raises:
        InputError: no training clip, or a checkpoint of another network.
    """
    clips, classes = load_clips(manifest, split, packs)
    others, _ = load_clips(manifest, split, through_packs)
    stream = load_stream(row, len(classes), checkpoint)
    teacher = load_stream(through, len(classes), through_checkpoint)
    meta = {"layers": list(stream.layers), "row": name}
    with (
        seeding.reproducible(threads),
        atomic_dir(network_out) as network_folder,
        atomic_dir(out) as folder,
    ):
        pairs = training_clips(clips, split), training_clips(others, split)
        frames = gated_frames(stream, teacher, *pairs, max_frames=attention.max_frames)
        learnt = _learn(frames, teacher, area_weight, attention, seed)
        checkpoints.save(learnt.network.state_dict(), network_folder / "model.pt")
        write_csv(pd.DataFrame(learnt.history), network_folder / "history.csv")
        predict_clips(stream, learnt.network, [without_label(c) for c in clips], folder, meta)
        draw_some(clips, row, attention.num_pictures, folder)


def gated_frames(
    stream: Stream,
    teacher: Stream,
    clips: Sequence[Clip],
    others: Sequence[Clip],
    *,
    max_frames: int,
) -> list[GatedFrame]:
    """Frames of training clips with the features that maps are made from.

    Args:
        stream: whose features.
        teacher: whose input the maps are laid on; read anew each time, it takes far more memory.
        clips, others: the same training clips with the packs of the one and of the other.
        max_frames: of each clip, evenly drawn; fewer where the features would pass 2 GiB.
    """
    counts = frames_to_learn(stream, clips, max_frames)
    found: list[GatedFrame] = []
    for clip, other, count in zip(track(clips, "features"), others, counts, strict=True):
        indices = evenly(clip.num_frames, count)
        if not indices:
            continue
        for piece, x in read_batches(stream, clip, indices):
            features = [f.cpu() for f in layer_features(stream.network, x, stream.layers)]
            for i, index in enumerate(piece):
                read = partial(_input, teacher, other, index)
                own = [feature[i].clone() for feature in features]
                found.append(GatedFrame(clip.clip_id, own, read, clip.label))
    return found


def _input(teacher: Stream, clip: Clip, index: int) -> Tensor:
    return full_frames(clip, teacher.inputs, [index], map_channel=teacher.map_channel)[0]


def _learn(
    frames: Sequence[GatedFrame],
    teacher: Stream,
    area_weight: float,
    attention: AttentionParams,
    seed: int,
) -> Learnt:
    numbers: dict[str, Any] = {
        key: getattr(attention, key)
        for key in ("hidden_channels", "epochs", "batch_size", "lr", "val_share")
    }
    loss = GatedLoss(teacher.network, map_channel=teacher.map_channel, area_weight=area_weight)
    return learning.fit(frames, loss, **numbers, seed=seed, device=teacher.device)
