"""Saliency maps as the predict stage packs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from flowsight.datasets.images.pairs import Pair
from flowsight.video import pack

PREDICTIONS, MAPS = "predictions.parquet", "maps.zip"


def maps_of(path: Path, pairs: Sequence[Pair]) -> Iterator[tuple[Pair, npt.NDArray[np.uint8]]]:
    """Maps of a pack, (H, W) uint8 each.

    Raises:
        InputError: no such pack, or a map that is missing or broken.
    """
    with pack.open_pack(path) as archive:
        for pair in pairs:
            data = np.frombuffer(archive.read(f"{pair.item_id}.png"), np.uint8)
            levels = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
            if levels is None:
                raise ValueError(f"{pair.item_id}.png is not an image")
            yield pair, levels.astype(np.uint8)
