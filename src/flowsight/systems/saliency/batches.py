"""Pairs of images and masks as tensors: scaled, mirrored, padded to one size a batch.

Axes: B batch, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from flowsight.batches import transforms
from flowsight.datasets.images.pairs import Image, Pair, read_image, read_mask
from flowsight.systems.saliency.params import ImageInputParams

VOID = 255
"""Target of pixels that are no part of an image and are not scored."""
Target = npt.NDArray[np.uint8]
Batch = tuple[Tensor, Tensor, Tensor]


class PairDataset(Dataset[Batch]):
    """Items by (epoch, index), read a batch at a time.

    Args:
        pairs: which.
        params: sizes and augmentation.
        train: scale and mirror by chance.
        seed: what is drawn is a function of (seed, epoch, index).
    """

    def __init__(
        self, pairs: Sequence[Pair], params: ImageInputParams, *, train: bool, seed: int
    ) -> None:
        self.pairs, self.params, self.train, self.seed = pairs, params, train, seed

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """x (B, 3, H, W) float32, target (B, H, W) uint8 of 0, 1 and `VOID`, index (B,)."""
        with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as threads:
            items = list(threads.map(self.read, keys))
        index = torch.tensor([index for _, index in keys])
        return (*collate([x for x, _ in items], [y for _, y in items]), index)

    def read(self, key: tuple[int, int]) -> tuple[Image, Target]:
        """One image (H, W, 3) uint8 RGB and its target (H, W)."""
        pair = self.pairs[key[1] % len(self.pairs)]
        image = read_image(pair.image, upright=pair.upright)
        target = read_mask(pair.mask).astype(np.uint8)
        factor = shrink_factor(image.shape[:2], self.params.long_px)
        mirrored = False
        if self.train:
            rng = np.random.default_rng((self.seed, *key))
            factor *= self.params.scales[rng.integers(len(self.params.scales))]
            mirrored = bool(rng.integers(2)) and self.params.flip
        image, target = scale(image, target, factor)
        if mirrored:
            image, target = image[:, ::-1], target[:, ::-1]
        return image, target


def as_read(batch: Any) -> Any:
    """`PairDataset` makes whole batches: nothing to collate."""
    return batch


def shrink_factor(shape: tuple[int, ...], long_px: int | None) -> float:
    """What an image is scaled by: smaller images stay as they are."""
    return 1.0 if long_px is None else min(1.0, long_px / max(shape))


def scale(image: Image, target: Target, factor: float) -> tuple[Image, Target]:
    """Both scaled: the image smoothly, the target to the nearest pixel; no side below 1 px."""
    if factor == 1:
        return image, target
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    return resize_image(image, height, width), cv2.resize(
        target, (width, height), interpolation=cv2.INTER_NEAREST_EXACT
    ).astype(np.uint8)


def resize_image(image: Image, height: int, width: int) -> Image:
    """(H, W, 3) to (height, width, 3); averages where it shrinks, else bilinear."""
    if image.shape[:2] == (height, width):
        return image
    method = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=method).astype(np.uint8)


def collate(images: Sequence[Image], targets: Sequence[Target]) -> tuple[Tensor, Tensor]:
    """Batch of images of different sizes, padded below and right with ImageNet's mean.

    Args:
        images: (H, W, 3) uint8 RGB each.
        targets: (H, W) each.

    Returns:
        x (B, 3, H, W) float32, channels last in memory, normalised; target (B, H, W) uint8, `VOID`
        where x is padding.
    """
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    x = np.zeros((len(images), height, width, 3), np.float32)
    y = np.full((len(images), height, width), VOID, np.uint8)
    for item, (image, target) in enumerate(zip(images, targets, strict=True)):
        rows, columns = image.shape[:2]
        x[item, :rows, :columns] = normalise(image)
        y[item, :rows, :columns] = target
    return torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(y)


def normalise(image: Image) -> npt.NDArray[np.float32]:
    """(H, W, 3) uint8 RGB to ImageNet's mean and spread, float32."""
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))[None]  # (1, 3, H, W)
    return transforms.normalise(planes, "rgb")[0].transpose(1, 2, 0)
