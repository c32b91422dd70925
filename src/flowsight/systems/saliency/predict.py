"""Saliency maps of images: each by itself, at its own size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowsight import progress
from flowsight.classifiers import networks
from flowsight.contract import Job
from flowsight.datasets.images.pairs import Image, Pair, load_pairs, read_image, read_mask
from flowsight.errors import InputError, ResourceError
from flowsight.files import atomic_file
from flowsight.metrics import saliency as metrics
from flowsight.nn import cost, seeding
from flowsight.systems.saliency import batches
from flowsight.systems.saliency import networks as saliency_networks
from flowsight.systems.saliency.maps import MAPS, PREDICTIONS
from flowsight.systems.saliency.params import ImageInputParams, ImageRowParams
from flowsight.video import pack

if TYPE_CHECKING:
    import pyarrow as pa

SUBSETS = ("val", "test")
COUNTED_PX = (300, 400)
"""Height and width of the image whose multiply-adds are told, before it is shrunk."""
Maps = npt.NDArray[np.uint8]


def predict(job: Job, device: str | None = None) -> None:
    """Write the maps of a split's validation and test images, and how many pixels are right.

    Args:
        job: folders `raw` and `items` (`datasets.images.pairs.load_pairs`) and `checkpoint` are
            read. Into `out` go `predictions.parquet`, sorted by item_id (item_id, subset, and tp,
            fp, fn, tn of the argmax map), and `maps.zip`, a pack of `<item_id>.png`, probability
            of being salient as 0 ... 255; its `meta.json` has the network's parameters and
            multiply-adds.
        device: where to compute; None: a GPU if there is one.

    Raises:
        InputError: no such pairs, a checkpoint of another network, scores that are not finite.
        ResourceError: the GPU's memory does not hold an image.
    """
    own: ImageRowParams = job.row
    found = load_pairs(job.folders["raw"], job.folders["items"], job.split)
    wanted = [pair for pair in found if pair.subset in SUBSETS]
    plan = job.block.plan_of(own)
    network = saliency_networks.restored(own, plan, job.folders["checkpoint"])
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    network = network.to(where).to(memory_format=networks.memory_format(network)).eval()
    rows: list[tuple[str, str, int, int, int, int]] = []

    def drawn() -> Iterator[tuple[str, bytes]]:
        for pair in progress.track(wanted, f"predict {job.row_name}"):
            levels, salient = saliency_map(network, pair, own.input)
            counts = metrics.confusion(salient, read_mask(pair.mask))
            rows.append((pair.item_id, pair.subset, *counts))
            yield f"{pair.item_id}.png", _png(levels)

    with seeding.reproducible(job.params.threads):
        cost = network_cost(network, own.input)
        meta = {"row": job.row_name, "split": job.split, **cost}
        pack.write_pack(job.out / MAPS, drawn(), meta)
    _write(rows, job.out / PREDICTIONS)


def network_cost(network: nn.Module, params: ImageInputParams) -> dict[str, int]:
    """Trained parameters, and multiply-adds for an image of `COUNTED_PX` as the network sees it."""
    factor = batches.shrink_factor(COUNTED_PX, params.long_px)
    height, width = (max(1, round(side * factor)) for side in COUNTED_PX)
    x = torch.zeros(1, 3, height, width, device=next(network.parameters()).device)
    return {
        "num_parameters": cost.num_parameters(network),
        "multiply_adds": cost.multiply_adds(network, x),
        "height": height,
        "width": width,
    }


def saliency_map(
    network: nn.Module, pair: Pair, params: ImageInputParams
) -> tuple[Maps, npt.NDArray[np.bool_]]:
    """An image's map and what it calls salient, (H, W) each at the image's own size.

    Raises:
        InputError: scores that are not finite.
        ResourceError: the GPU's memory does not hold the image.
    """
    image = read_image(pair.image, upright=pair.upright)
    try:
        scores = image_scores(network, image, params)
    except torch.OutOfMemoryError:
        raise ResourceError(
            f"expected {pair.item_id}, {image.shape[1]} x {image.shape[0]} px, to fit into the "
            "GPU's memory, it did not; lower input.long_px of the row"
        ) from None
    if not torch.isfinite(scores).all():
        raise InputError(
            f"expected finite scores, got others for {pair.item_id}; the training diverged: lower "
            "the row's train.lr and train again"
        )
    probability = scores.double().softmax(dim=0)[1]
    levels = (255 * probability).round().to(torch.uint8).numpy()
    return levels, (scores[1] > scores[0]).numpy()


@torch.inference_mode()
def image_scores(network: nn.Module, image: Image, params: ImageInputParams) -> Tensor:
    """Scores (2, H, W) of an image (H, W, 3), float32 on the CPU, at its own size."""
    height, width = image.shape[:2]
    factor = batches.shrink_factor((height, width), params.long_px)
    small, target = batches.scale(image, np.zeros((height, width), np.uint8), factor)
    x, _ = batches.collate([small], [target])
    device = next(network.parameters()).device
    x = x.to(device, memory_format=networks.memory_format(network))
    scores: Tensor = network(x).float()
    if scores.shape[-2:] != (height, width):
        scores = F.interpolate(scores, (height, width), mode="bilinear", align_corners=False)
    return scores[0].cpu()


def _png(levels: Maps) -> bytes:
    _, data = cv2.imencode(".png", levels)
    return data.tobytes()


def _write(rows: list[tuple[str, str, int, int, int, int]], out: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ("item_id", "subset", "tp", "fp", "fn", "tn")
    table: pa.Table = pa.table(dict(zip(names, zip(*rows, strict=True), strict=True)))
    with atomic_file(out) as temporary:
        pq.write_table(table, temporary)
