"""Scores of clips: evenly drawn views, several crops of each, logits averaged."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from flowsight import progress
from flowsight.batches import sampling, transforms
from flowsight.batches.clips import Clip, count_positions, load_clips, network_input, read_images
from flowsight.batches.params import InputParams
from flowsight.batches.sampling import Indices
from flowsight.batches.transforms import Images
from flowsight.classifiers import networks
from flowsight.classifiers.params import RowParams
from flowsight.contract import Job
from flowsight.errors import InputError, ResourceError
from flowsight.evaluation.predictions import FILE
from flowsight.files import atomic_file
from flowsight.nn import checkpoint, seeding
from flowsight.params.config import Params

if TYPE_CHECKING:
    import pyarrow as pa

SUBSETS = ("val", "test")
VIEWS_RIGHT = "views_right"
"""Share of a clip's views whose own best class is its label: the accuracy of single clips."""
_CHUNK = 50
"""Inputs that go through the network at once, unless FLOWSIGHT_MICRO_BATCH says otherwise."""


def predict(
    *,
    model: ModuleType,
    row: RowParams,
    params: Params,
    manifest: Path,
    split: Path,
    packs: Path,
    checkpoint_dir: Path,
    maps: Path | None = None,
    device: str | None = None,
) -> pa.Table:
    """Logits of a split's validation and test clips.

    Args:
        model: the system's `network`.
        row: network, input and views.
        params: `threads` is read.
        manifest, split, packs, maps: see `batches.clips.load_clips`.
        checkpoint_dir: folder with the row's `model.pt`.
        device: where to compute; None: a GPU if there is one.

    Returns:
        One row a clip, sorted by clip_id: clip_id, subset, label (class name) and
        `logit_<class name>` for each class in the order of `classes.csv`, float32. Of networks over
        time also `VIEWS_RIGHT`, float64.

    Raises:
        InputError: no such clips, a checkpoint of another network, logits that are not finite.
        ResourceError: the GPU's memory does not hold a chunk of views.
    """
    clips, classes = load_clips(manifest, split, packs, maps, map_control=row.start.map_control)
    wanted = sorted((c for c in clips if c.subset in SUBSETS), key=lambda clip: clip.clip_id)
    if not wanted:
        raise InputError(f"expected validation or test clips in {split}, found none")
    network = networks.build(model, row, len(classes))
    checkpoint.restore(network, checkpoint_dir / "model.pt")
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    network = network.to(where).to(memory_format=networks.memory_format(network)).eval()
    with seeding.reproducible(params.threads):
        scores = [
            clip_scores(network, clip, row)
            for clip in progress.track(wanted, f"predict {row.input.modality}")
        ]
    table = _table(wanted, np.stack([logits.numpy() for logits, _ in scores]), classes)
    if row.input.clip_length is None:
        return table
    return table.append_column(VIEWS_RIGHT, [[share for _, share in scores]])


def write_predictions(job: Job, model: ModuleType) -> None:
    """What the predict stages of classifiers write: `predictions.parquet` of `predict`'s table.

    Args:
        job: folders `manifest`, `split_file`, `packs` and `checkpoint` are read, and `maps`, where
            the row has them; `out` exists.
        model: the system's `network`.

    Raises:
        InputError, ResourceError: as `predict`.
    """
    table = predict(
        model=model,
        row=job.row,
        params=job.params,
        manifest=job.folders["manifest"],
        split=job.folders["split_file"],
        packs=job.folders["packs"],
        checkpoint_dir=job.folders["checkpoint"],
        maps=job.folders.get("maps"),
    )
    write(table, job.out / FILE)


def clip_logits(network: nn.Module, clip: Clip, row: RowParams) -> Tensor:
    """Mean logits of a clip over its views and crops.

    Args:
        network: in evaluation mode, on its device.
        clip: where to read.
        row: `input` and `test` are read.

    Returns:
        (K,) float32 on the CPU.

    Raises:
        InputError: logits that are not finite.
        ResourceError: the GPU's memory does not hold a chunk of views.
    """
    return clip_scores(network, clip, row)[0]


def clip_scores(network: nn.Module, clip: Clip, row: RowParams) -> tuple[Tensor, float]:
    """Mean logits of a clip, and the share of its views that are right by themselves.

    Args, Raises: as `clip_logits`.

    Returns:
        (K,) float32 on the CPU; the share, in [0, 1].
    """
    positions, counts = view_positions(clip, row.input, row.test.num_views)
    # one read for all views: their stacks overlap, and a frame is decoded once
    crops = _crops(read_images(clip, row.input, positions), row.input, row.test.num_crops)
    each = row.input.images_per_input
    num_inputs = len(crops) * len(positions)
    total, right = torch.zeros(0), 0.0
    try:
        for start in range(0, num_inputs, chunk_size()):
            stop = min(start + chunk_size(), num_inputs)
            images = _part(crops, start * each, stop * each)
            inputs = network_input(images, row.input, map_channel=row.network.map_channel)
            # crops of one kind stand together: the same views again and again
            weights = counts[np.arange(start, start + len(inputs)) % len(counts)]
            logits = _forward(network, inputs).double()
            part = (logits * torch.from_numpy(weights)[:, None]).sum(dim=0)
            total = part if start == 0 else total + part
            right += float(weights[(logits.argmax(dim=1) == clip.label).numpy()].sum())
    except torch.OutOfMemoryError:
        raise ResourceError(
            f"expected {chunk_size()} views to fit into the GPU's memory, they did not; set "
            f"FLOWSIGHT_MICRO_BATCH={max(1, chunk_size() // 2)}"
        ) from None
    if not torch.isfinite(total).all():
        raise InputError(
            f"expected finite logits, got {total.tolist()} for {clip.clip_id}; the training "
            "diverged: lower the row's train.lr and train again"
        )
    num_views = row.test.num_views * row.test.num_crops
    return (total / num_views).float(), right / num_views


def view_positions(clip: Clip, params: InputParams, num_views: int) -> tuple[Indices, np.ndarray]:
    """Distinct positions of the evenly drawn views, and how many views each one stands for.

    A short clip has fewer positions than views; each is computed once.
    """
    drawn = sampling.even_positions(count_positions(clip, params), num_views)
    counted = Counter(drawn.tolist())
    return np.array(list(counted)), np.array(list(counted.values()), dtype=np.float64)


def _crops(images: Images, params: InputParams, num_crops: int) -> list[Images]:
    """Kinds of crops, each of all views (N, C, crop_px, crop_px), without copies."""
    size = {"resize_px": params.resize_px, "crop_px": params.crop_px}
    if num_crops == 1:
        return [transforms.centre_crop(images, **size)]
    return transforms.ten_crop(images, modality=params.modality, **size)


def _part(crops: Sequence[Images], start: int, stop: int) -> Images:
    """Inputs `start` to `stop` of the crops, kind after kind; only these are copied."""
    count = len(crops[0])
    kinds = range(start // count, -(-stop // count))
    parts = [crops[k][max(0, start - k * count) : stop - k * count] for k in kinds]
    return np.concatenate(parts)


def chunk_size() -> int:
    """Inputs that go through the network at once.

    Raises:
        InputError: `FLOWSIGHT_MICRO_BATCH` is not a positive number.
    """
    text = os.environ.get("FLOWSIGHT_MICRO_BATCH", "")
    if text and (not text.isdecimal() or int(text) < 1):
        raise InputError(f"expected FLOWSIGHT_MICRO_BATCH as a positive number, got {text!r}")
    return int(text) if text else _CHUNK


@torch.inference_mode()
def _forward(network: nn.Module, inputs: Tensor) -> Tensor:
    device = next(network.parameters()).device
    inputs = inputs.to(device, memory_format=networks.memory_format(network))
    logits: Tensor = network(inputs)
    return logits.cpu()


def _table(clips: Sequence[Clip], logits: np.ndarray, classes: Sequence[str]) -> pa.Table:
    import pyarrow as pa

    columns: dict[str, object] = {
        "clip_id": [clip.clip_id for clip in clips],
        "subset": [clip.subset for clip in clips],
        "label": [classes[clip.label] for clip in clips],
    }
    for index, name in enumerate(classes):
        columns[f"logit_{name}"] = pa.array(logits[:, index], type=pa.float32())
    return pa.table(columns)


def write(table: pa.Table, path: Path) -> None:
    """Write predictions as parquet, atomically; the same table gives the same bytes."""
    import pyarrow.parquet as pq

    with atomic_file(path) as temporary:
        pq.write_table(table, temporary)
