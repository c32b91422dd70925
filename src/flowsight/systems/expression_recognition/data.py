"""Pictures of faces as tensors: resized, moved about by chance, cropped, normalised.

Axes: B batch, S crops, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from flowsight.batches import transforms
from flowsight.datasets.images.labelled import Labelled
from flowsight.datasets.images.pairs import Image, read_image
from flowsight.systems.expression_recognition.params import Input

Batch = tuple[Tensor, Tensor, Tensor]
Crops = npt.NDArray[np.uint8]
_GREY_MEAN, _GREY_STD = 0.5, 0.25
_ERASED = (0.02, 0.2)
"""Area of an erased rectangle, as a share of the picture's."""


class FaceDataset(Dataset[Batch]):
    """Items by (epoch, index), read a batch at a time.

    Args:
        items: which.
        params: sizes and augmentation.
        channels: of the network's input, 1 or 3.
        train: move, turn, mirror and erase by chance; else the centre.
        seed: what is drawn is a function of (seed, epoch, index).
    """

    def __init__(
        self, items: Sequence[Labelled], params: Input, *, channels: int, train: bool, seed: int
    ) -> None:
        self.items, self.params, self.channels = items, params, channels
        self.train, self.seed = train, seed

    def __len__(self) -> int:
        return len(self.items)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """x (B, C, H, W) float32, label (B,) int64, index (B,)."""
        crops = np.stack([self.read(key) for key in keys])  # (B, H, W, 3)
        labels = [self.items[index % len(self.items)].label for _, index in keys]
        index = torch.tensor([index for _, index in keys])
        return to_tensor(crops, self.params, self.channels), torch.tensor(labels), index

    def read(self, key: tuple[int, int]) -> Image:
        """What the network sees of an item, (crop_px, crop_px, 3) uint8 RGB."""
        image = read_image(self.items[key[1] % len(self.items)].image)
        if not self.train:
            return crops_of(image, self.params, 1)[0]
        return augmented(image, self.params, np.random.default_rng((self.seed, *key)))


def as_read(batch: Any) -> Any:
    """`FaceDataset` makes whole batches: nothing to collate."""
    return batch


def augmented(image: Image, params: Input, rng: np.random.Generator) -> Image:
    """A picture rescaled, moved, turned, mirrored and cropped by chance, in one interpolation.

    Args:
        image: (H, W, 3) uint8 RGB.
        params: how much.
        rng: for all of it.

    Returns:
        (crop_px, crop_px, 3) uint8; what lies outside the picture repeats its border.
    """
    side, crop = params.resize_px, params.crop_px
    zoom = 1 + rng.uniform(-params.scale, params.scale)
    angle = rng.uniform(-params.rotation_deg, params.rotation_deg)
    moved = rng.uniform(-params.shift, params.shift, 2) * side
    corner = rng.integers(0, side - crop + 1, 2)
    mirrored = bool(rng.integers(2)) and params.mirror
    erased = rng.random() < params.erase
    matrix = _around_centre(image.shape[:2], side, zoom, angle, mirrored)
    matrix[:, 2] += moved - corner
    seen = cv2.warpAffine(
        image, matrix, (crop, crop), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    ).astype(np.uint8)
    return _erased(seen, rng) if erased else seen


def _around_centre(
    shape: tuple[int, ...], side: int, zoom: float, angle_deg: float, mirrored: bool
) -> npt.NDArray[np.float64]:
    """Matrix (2, 3) from a picture's pixels to those of its resized, turned and mirrored copy."""
    height, width = shape
    turn = np.deg2rad(angle_deg)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    scales = np.array([side / width * (-1 if mirrored else 1), side / height])
    linear = zoom * rotation * scales
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    return np.column_stack([linear, (side - 1) / 2 - linear @ centre])


def _erased(image: Image, rng: np.random.Generator) -> Image:
    """With a rectangle of noise: Zhong et al. 2020, "Random erasing data augmentation"."""
    height, width = image.shape[:2]
    area = rng.uniform(*_ERASED) * height * width
    ratio = np.exp(rng.uniform(np.log(0.3), np.log(1 / 0.3)))
    tall = int(np.clip(round(np.sqrt(area * ratio)), 1, height))
    wide = int(np.clip(round(np.sqrt(area / ratio)), 1, width))
    top, left = rng.integers(0, height - tall + 1), rng.integers(0, width - wide + 1)
    image = image.copy()
    noise = rng.integers(0, 256, (tall, wide, 1))  # grey: colours would give it away
    image[top : top + tall, left : left + wide] = noise
    return image


def crops_of(image: Image, params: Input, num_crops: int) -> Crops:
    """What a network is tested on: the centre, or also corners and all of it mirrored.

    Args:
        image: (H, W, 3) uint8 RGB.
        params: sizes.
        num_crops: 1 or 10.

    Returns:
        (S, crop_px, crop_px, 3): the centre first, then the corners by rows, then mirrored.
    """
    side, crop = params.resize_px, params.crop_px
    small = resized(image, side)
    rest = side - crop
    places = [(rest // 2, rest // 2)]
    if num_crops == 10:
        places += [(0, 0), (0, rest), (rest, 0), (rest, rest)]
    found = [small[y : y + crop, x : x + crop] for y, x in places]
    if num_crops == 10:
        found += [view[:, ::-1] for view in found]
    return np.stack(found)


def resized(image: Image, side: int) -> Image:
    """(H, W, 3) to (side, side, 3); averages where it shrinks, else bilinear."""
    if image.shape[:2] == (side, side):
        return image
    method = cv2.INTER_AREA if side < min(image.shape[:2]) else cv2.INTER_LINEAR
    return cv2.resize(image, (side, side), interpolation=method).astype(np.uint8)


def to_tensor(crops: Crops, params: Input, channels: int) -> Tensor:
    """Normalised input of a network.

    Args:
        crops: (B, H, W, 3) uint8 RGB.
        params: whether colours are seen.
        channels: 1, or 3 (by ImageNet's mean and spread; grey is repeated).

    Returns:
        (B, C, H, W) float32.
    """
    if not params.colour:
        grey = np.stack([cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) for crop in crops])  # (B, H, W)
        if channels == 1:
            scaled = (grey.astype(np.float32)[:, None] / 255 - _GREY_MEAN) / _GREY_STD
            return torch.from_numpy(scaled.astype(np.float32))
        crops = np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)
    planes = np.ascontiguousarray(crops.transpose(0, 3, 1, 2))
    return torch.from_numpy(transforms.normalise(planes, "rgb"))
