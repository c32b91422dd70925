"""Crops, flips and normalisation of stored images: TSN's augmentation and ten-crop testing.

Images are uint8 arrays (N, C, H, W): RGB, or a stack's u1 v1 u2 v2 ..., then, where there is one,
the attention map as the last channel, so that all of it is cropped, scaled and mirrored together.
Mirroring negates u, that is 255 - q of the stored q; a map is never negated.

Written on numpy and OpenCV: importing torchvision costs four to seven seconds a process, which the
predict and attention stages would pay for a resize. The tests compare with torchvision instead.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]

# channel statistics of ImageNet, for values in [0, 1]
RGB_MEAN = (0.485, 0.456, 0.406)
RGB_STD = (0.229, 0.224, 0.225)
# stored flow is centred at 0.5; the spread is the mean of the RGB ones, as TSN takes it
FLOW_MEAN = 0.5
FLOW_STD = 0.226


class Box(NamedTuple):
    """A crop in whole pixels."""

    top: int
    left: int
    height: int
    width: int


def corner_boxes(height: int, width: int, crop_height: int, crop_width: int) -> list[Box]:
    """Crops at the corners and the centre: top left, top right, bottom left, bottom right, centre.

    Args:
        height, width: of the image, px.
        crop_height, crop_width: of the crops, at most the image's, px.
    """
    bottom, right = height - crop_height, width - crop_width
    # rounded half to even, as torchvision's centre crop does
    middle = (round(bottom / 2), round(right / 2))
    starts = [(0, 0), (0, right), (bottom, 0), (bottom, right), middle]
    return [Box(top, left, crop_height, crop_width) for top, left in starts]


def multi_scale_box(
    height: int,
    width: int,
    scales: tuple[float, ...],
    rng: np.random.Generator,
    max_distortion: int = 1,
) -> Box:
    """TSN's training crop: a random size at a random corner or the centre.

    Height and width are scales of the image's short side, at most `max_distortion` steps apart in
    the list of scales, so that crops are squares or slightly stretched.

    Args:
        height, width: of the image, px.
        scales: shares of the short side, in (0, 1].
        rng: source of chance.
        max_distortion: how far apart in `scales` height and width may be.
    """
    sides = [max(1, round(min(height, width) * scale)) for scale in scales]
    sizes = [
        (h, w)
        for i, h in enumerate(sides)
        for j, w in enumerate(sides)
        if abs(i - j) <= max_distortion
    ]
    size = sizes[rng.integers(len(sizes))]
    return corner_boxes(height, width, *size)[rng.integers(5)]


def crop(images: Images, box: Box) -> Images:
    """Cut out a box: (N, C, H, W) to (N, C, box.height, box.width), a view."""
    return images[..., box.top : box.top + box.height, box.left : box.left + box.width]


def resize(images: Images, height: int, width: int) -> Images:
    """Scale: (N, C, H, W) to (N, C, height, width); averages where it shrinks, else bilinear."""
    if images.shape[2:] == (height, width):
        return images
    shrinks = height * width < images.shape[2] * images.shape[3]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    # plane by plane: OpenCV averages no more than four channels at once
    planes = images.reshape(-1, *images.shape[2:])
    resized = [cv2.resize(plane, (width, height), interpolation=method) for plane in planes]
    return np.stack(resized).reshape(*images.shape[:2], height, width)


def resize_short_side(images: Images, size: int) -> Images:
    """Scale so that the shorter of height and width is `size` px; the proportions stay."""
    height, width = images.shape[2:]
    scale = size / min(height, width)
    return resize(images, max(size, round(height * scale)), max(size, round(width * scale)))


def mirror(images: Images, modality: str) -> Images:
    """Mirror left and right; with the image, motion to the right turns into motion to the left.

    Args:
        images: (N, C, H, W), an attention map possibly last.
        modality: `rgb` or `flow`.

    Returns:
        A copy; in flow, u (the even channels) is negated: 255 - q.
    """
    mirrored = images[..., ::-1].copy()
    if modality == "flow":
        end = images.shape[1] - images.shape[1] % 2  # an odd number of channels: the last is a map
        mirrored[:, 0:end:2] = 255 - mirrored[:, 0:end:2]
    return mirrored


def augment(
    images: Images,
    *,
    modality: str,
    crop_px: int,
    scales: tuple[float, ...],
    flip: bool,
    rng: np.random.Generator,
) -> Images:
    """Training: one multi-scale corner crop and one chance of a flip for all images of a clip.

    Returns:
        (N, C, crop_px, crop_px).
    """
    box = multi_scale_box(images.shape[2], images.shape[3], scales, rng)
    mirrored = bool(rng.integers(2)) and flip
    images = resize(crop(images, box), crop_px, crop_px)
    return mirror(images, modality) if mirrored else images


def centre_crop(images: Images, *, resize_px: int, crop_px: int) -> Images:
    """Validation, and testing with one crop: (N, C, crop_px, crop_px)."""
    images = resize_short_side(images, resize_px)
    return crop(images, corner_boxes(images.shape[2], images.shape[3], crop_px, crop_px)[4])


def ten_crop(images: Images, *, modality: str, resize_px: int, crop_px: int) -> list[Images]:
    """Testing: corners and centre of the image, then of its mirror image.

    Returns:
        Ten (N, C, crop_px, crop_px), views of two images: ten times the memory is not needed.
    """
    images = resize_short_side(images, resize_px)
    boxes = corner_boxes(images.shape[2], images.shape[3], crop_px, crop_px)
    both = (images, mirror(images, modality))
    return [crop(side, box) for side in both for box in boxes]


def normalise(images: Images, modality: str) -> npt.NDArray[np.float32]:
    """Stored bytes to network input.

    RGB: (q / 255 - mean) / std of ImageNet; flow: (q / 255 - 0.5) / 0.226; the map: q / 255.

    Args:
        images: (N, C, H, W); C is 3 or 4 for RGB, 2L or 2L + 1 for flow.
        modality: `rgb` or `flow`.

    Returns:
        (N, C, H, W) float32.
    """
    factor, minus = (numbers[:, None, None] for numbers in _factors(images.shape[1], modality))
    return np.subtract(np.multiply(images, factor, dtype=np.float32), minus, dtype=np.float32)


def normalise_into(
    out: npt.NDArray[np.float32], images: Images, modality: str, *, constant: float | None = None
) -> None:
    """`normalise` to the same bits, channels last, into memory at hand.

    Args:
        out: (N, H, W, C), contiguous.
        images: (N, C, H, W), or (N, C - 1, H, W) with a constant.
        modality: `rgb` or `flow`.
        constant: value of a last channel that the images do not have.
    """
    _, height, width, _ = out.shape
    factor, minus = _factors(images.shape[1], modality)
    if constant is not None:
        factor, minus = np.append(factor, np.float32(0)), np.append(minus, np.float32(-constant))
    # whole rows: a loop over two or ten channels at a time would take three times as long
    factor, minus = np.tile(factor, width), np.tile(minus, width)
    more = [np.zeros((height, width), np.uint8)] * (constant is not None)
    for image, target in zip(images, out, strict=True):
        stored = cv2.merge([*image, *more]).reshape(height, -1)
        rows = target.reshape(height, -1)
        np.multiply(stored, factor, out=rows, dtype=np.float32)
        np.subtract(rows, minus, out=rows)


def _factors(
    channels: int, modality: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Per channel (C,): what a stored byte is multiplied by, and what is then taken away."""
    mean, std = np.zeros(channels, np.float32), np.ones(channels, np.float32)
    if modality == "rgb":
        mean[:3], std[:3] = RGB_MEAN, RGB_STD
    else:
        end = channels - channels % 2
        mean[:end], std[:end] = FLOW_MEAN, FLOW_STD
    return np.reciprocal(255 * std, dtype=np.float32), mean / std
