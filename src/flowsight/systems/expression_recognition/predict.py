"""Logits of the validation and test pictures of a split.

Axes: B batch, S crops, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flowsight import files
from flowsight.classifiers import networks
from flowsight.contract import Job
from flowsight.datasets.images.labelled import Labelled, load_labelled
from flowsight.datasets.images.pairs import Image, read_image
from flowsight.errors import InputError
from flowsight.nn import checkpoint, cost, gradcam, seeding
from flowsight.progress import track
from flowsight.systems.expression_recognition import data
from flowsight.systems.expression_recognition import network as models
from flowsight.systems.expression_recognition.network import Expressions
from flowsight.systems.expression_recognition.params import Row

SUBSETS = ("val", "test")
PREDICTIONS, META = "predictions.parquet", "meta.json"
_BATCH = 64
"""Pictures at once: fixed, for sums hang on how they are cut."""


def predict(job: Job) -> None:
    """Write the logits of a split's validation and test pictures.

    Args:
        job: folders `raw`, `items` and `checkpoint` are read. Into `out` go `predictions.parquet`,
            sorted by item_id (item_id, subset, label, logit_<class> float32: the mean over the
            crops), and `meta.json` (num_parameters, multiply_adds of one crop, num_crops).

    Raises:
        InputError: no such pictures, a checkpoint of another network, logits that are not finite.
    """
    row: Row = job.row
    found, classes = load_labelled(job.folders["raw"], job.folders["items"], job.split)
    wanted = sorted((i for i in found if i.subset in SUBSETS), key=lambda item: item.item_id)
    with seeding.reproducible(job.params.threads):
        network = restored(row, len(classes), job.folders["checkpoint"])
        where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network = network.to(where).to(memory_format=networks.memory_format(network)).eval()
        parts = [wanted[start : start + _BATCH] for start in range(0, len(wanted), _BATCH)]
        logits = np.concatenate(
            [
                image_logits(network, [read_image(i.image) for i in part], row)
                for part in track(parts, f"predict {job.row_name}")
            ]
        )
    if not np.isfinite(logits).all():
        raise InputError(
            f"expected finite logits, got others of row {job.row_name}; the training diverged: "
            "lower the row's train.lr and train again"
        )
    _write(wanted, logits, classes, job.out)
    files.write_json(network_cost(network, row), job.out / META)


def restored(row: Row, num_classes: int, folder: Path) -> Expressions:
    """The row's network with the weights of its checkpoint, on the CPU.

    Raises:
        InputError: no checkpoint, or one of another network.
    """
    network = built(row, num_classes)
    checkpoint.restore(network, folder / "model.pt")
    return network


def built(row: Row, num_classes: int) -> Expressions:
    """The row's network, untrained."""
    return models.build(
        backbone=row.network.backbone,
        num_classes=num_classes,
        width=row.network.width,
        dropout=row.network.dropout,
    )


@torch.inference_mode()
def image_logits(
    network: Expressions, images: Sequence[Image], row: Row
) -> npt.NDArray[np.float32]:
    """Logits (B, K) of faces, each (H, W, 3) uint8 RGB: the mean over the row's crops."""
    count = row.test.num_crops
    crops = np.concatenate([data.crops_of(image, row.input, count) for image in images])
    x = data.to_tensor(crops, row.input, row.network.channels)  # (B * S, C, H, W)
    device = next(network.parameters()).device
    x = x.to(device, memory_format=networks.memory_format(network))
    logits: Tensor = network(x).float().unflatten(0, (len(images), count)).mean(dim=1)  # (B, K)
    return logits.cpu().numpy()


def network_cost(network: Expressions, row: Row) -> dict[str, int]:
    """Weights, multiply-adds of one crop, and crops."""
    side = row.input.crop_px
    device = next(network.parameters()).device
    x = torch.zeros(1, row.network.channels, side, side, device=device)
    return {
        "num_parameters": cost.num_parameters(network),
        "multiply_adds": cost.multiply_adds(network, x),
        "num_crops": row.test.num_crops,
    }


def _write(
    items: Sequence[Labelled],
    logits: npt.NDArray[np.float32],
    classes: Sequence[str],
    out: Path,
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {
        "item_id": [item.item_id for item in items],
        "subset": [item.subset for item in items],
        "label": [classes[item.label] for item in items],
    }
    columns |= {f"logit_{name}": logits[:, k] for k, name in enumerate(classes)}
    out.mkdir(parents=True, exist_ok=True)
    with files.atomic_file(out / PREDICTIONS) as temporary:
        pq.write_table(pa.table(columns), temporary)


def attention_map(
    network: Expressions, image: Image, row: Row, label: int
) -> npt.NDArray[np.uint8]:
    """Where the network looks for a class: Grad-CAM at the last convolution, on the centre crop.

    Args:
        network: of the row.
        image: (H, W, 3) uint8 RGB.
        row: sizes and backbone.
        label: the class.

    Returns:
        (H, W) of 0 ... 255; what the crop leaves out is 0.
    """
    side, crop = row.input.resize_px, row.input.crop_px
    crops = data.crops_of(image, row.input, 1)
    x = data.to_tensor(crops, row.input, row.network.channels)
    device = next(network.parameters()).device
    layer = models.target_layer(row.network.backbone)
    found = gradcam.grad_cam(
        network, x.to(device), torch.tensor([label], device=device), [layer], size=(crop, crop)
    )
    whole, start = np.zeros((side, side), np.float32), (side - crop) // 2
    whole[start : start + crop, start : start + crop] = found[0].cpu().numpy()
    height, width = image.shape[:2]
    scaled = cv2.resize(whole, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.rint(255 * np.clip(scaled, 0, 1)).astype(np.uint8)
