"""Crops, flips and normalisation, against torchvision and by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from flowsight.batches import transforms
from flowsight.batches.transforms import Box, Images


@pytest.fixture
def images() -> Images:
    return np.random.default_rng(0).integers(0, 256, (3, 5, 23, 30)).astype(np.uint8)


def test_corner_boxes() -> None:
    assert transforms.corner_boxes(10, 13, 4, 6) == [
        Box(0, 0, 4, 6),
        Box(0, 7, 4, 6),
        Box(6, 0, 4, 6),
        Box(6, 7, 4, 6),
        Box(3, 4, 4, 6),  # 3.5 columns round to the even 4
    ]


def test_multi_scale_boxes_are_tsn_s() -> None:
    rng = np.random.default_rng(0)
    boxes = {
        transforms.multi_scale_box(100, 140, (1.0, 0.875, 0.75, 0.66), rng) for _ in range(3000)
    }
    sides = [100, 88, 75, 66]
    near = {(h, w) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1}
    assert {(box.height, box.width) for box in boxes} == near
    for box in boxes:
        assert box in transforms.corner_boxes(100, 140, box.height, box.width)


def test_mirror_negates_u_only() -> None:
    image = np.arange(5, dtype=np.uint8).reshape(1, 5, 1, 1) + np.zeros((1, 5, 1, 2), np.uint8)
    image[..., 1] += 100  # channels 0..4 on the left, 100..104 on the right
    mirrored = transforms.mirror(image, "flow")  # u1 v1 u2 v2 map
    assert mirrored[0, :, 0, 0].tolist() == [155, 101, 153, 103, 104]
    assert mirrored[0, :, 0, 1].tolist() == [255, 1, 253, 3, 4]
    assert transforms.mirror(image, "rgb")[0, :, 0, 0].tolist() == [100, 101, 102, 103, 104]
    plain = transforms.mirror(image[:, :4], "flow")  # no map: an even number of channels
    assert plain[0, :, 0, 0].tolist() == [155, 101, 153, 103]


def test_mirroring_twice_changes_nothing(images: Images) -> None:
    before = images.copy()
    for modality in ("rgb", "flow"):
        twice = transforms.mirror(transforms.mirror(images, modality), modality)
        np.testing.assert_array_equal(twice, images)
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("size", [(23, 30), (23, 23), (30, 23), (40, 25)])
@pytest.mark.parametrize("crop_px", [23, 20, 17])
def test_ten_crop_is_torchvision_s(size: tuple[int, int], crop_px: int) -> None:
    torch = pytest.importorskip("torch")
    from torchvision.transforms import v2

    images = np.random.default_rng(1).integers(0, 256, (2, 4, *size)).astype(np.uint8)
    short = min(size)
    ours = transforms.ten_crop(images, modality="rgb", resize_px=short, crop_px=min(crop_px, short))
    theirs = v2.TenCrop(min(crop_px, short))(torch.from_numpy(images))
    np.testing.assert_array_equal(np.concatenate(ours), torch.cat(theirs).numpy())
    assert all(np.shares_memory(one, images) for one in ours[:5]), "no copies"


def test_ten_crop_of_flow_negates_u_in_the_mirrored_half() -> None:
    images = np.zeros((1, 3, 8, 8), np.uint8)  # u v map
    images[:, 0], images[:, 1], images[:, 2] = 200, 90, 7
    crops = np.concatenate(transforms.ten_crop(images, modality="flow", resize_px=8, crop_px=4))
    assert crops.shape == (10, 3, 4, 4)
    assert crops[:5, :, 0, 0].tolist() == [[200, 90, 7]] * 5
    assert crops[5:, :, 0, 0].tolist() == [[55, 90, 7]] * 5


def test_centre_crop_is_torchvision_s(images: Images) -> None:
    torch = pytest.importorskip("torch")
    from torchvision.transforms import v2

    for crop_px in (23, 22, 9):
        ours = transforms.centre_crop(images, resize_px=23, crop_px=crop_px)
        theirs = v2.functional.center_crop(torch.from_numpy(images), [crop_px, crop_px])
        np.testing.assert_array_equal(ours, theirs.numpy())


@pytest.mark.parametrize(
    ("size", "expected"), [((60, 80), (30, 40)), ((80, 60), (40, 30)), ((240, 320), (30, 40))]
)
def test_resize_keeps_proportions(size: tuple[int, int], expected: tuple[int, int]) -> None:
    images = np.zeros((2, 3, *size), np.uint8)
    assert transforms.resize_short_side(images, 30).shape == (2, 3, *expected)


def test_resize_treats_each_plane_as_opencv_does(images: Images) -> None:
    smaller = transforms.resize(images, 11, 12)
    larger = transforms.resize(images, 40, 41)
    for n in range(3):
        for c in range(5):
            plane = images[n, c]
            area = cv2.resize(plane, (12, 11), interpolation=cv2.INTER_AREA)
            np.testing.assert_array_equal(smaller[n, c], area)
            linear = cv2.resize(plane, (41, 40), interpolation=cv2.INTER_LINEAR)
            np.testing.assert_array_equal(larger[n, c], linear)


def test_shrinking_does_not_alias() -> None:
    """Stripes of one pixel become grey, as with torchvision's antialiased resize."""
    stripes = np.zeros((1, 1, 40, 40), np.uint8)
    stripes[..., ::2] = 255
    smaller = transforms.resize(stripes, 20, 20)
    assert abs(smaller.astype(int) - 127).max() <= 1


def test_augment_crops_map_and_image_together() -> None:
    """The map is a copy of the first channel, and stays one."""
    image = np.random.default_rng(2).integers(0, 256, (2, 1, 40, 50)).astype(np.uint8)
    images = np.repeat(image, 4, axis=1)
    for seed in range(20):
        out = transforms.augment(
            images,
            modality="rgb",
            crop_px=24,
            scales=(1.0, 0.75),
            flip=True,
            rng=np.random.default_rng(seed),
        )
        assert out.shape == (2, 4, 24, 24)
        np.testing.assert_array_equal(out[:, 3], out[:, 0])


def test_flip_can_be_switched_off() -> None:
    ramp = np.tile(np.arange(32, dtype=np.uint8) * 8, (1, 1, 32, 1))

    def is_mirrored(flip: bool, seed: int) -> bool:
        rng = np.random.default_rng(seed)
        out = transforms.augment(
            ramp, modality="rgb", crop_px=32, scales=(1.0,), flip=flip, rng=rng
        )
        return bool(out[0, 0, 0, 0] > out[0, 0, 0, -1])

    assert not any(is_mirrored(False, seed) for seed in range(30))
    share = np.mean([is_mirrored(True, seed) for seed in range(300)])
    assert 0.4 < share < 0.6


def test_normalise_by_hand() -> None:
    rgb = np.full((1, 4, 1, 1), 51, np.uint8)  # 0.2
    expected = [(0.2 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (0.2 - 0.406) / 0.225, 0.2]
    out = transforms.normalise(rgb, "rgb")
    assert out.dtype == np.float32
    np.testing.assert_allclose(out[0, :, 0, 0], expected, atol=1e-6)
    flow = np.array([0, 255, 51, 204, 255], np.uint8).reshape(1, 5, 1, 1)
    expected = [-0.5 / 0.226, 0.5 / 0.226, -0.3 / 0.226, 0.3 / 0.226, 1.0]
    np.testing.assert_allclose(transforms.normalise(flow, "flow")[0, :, 0, 0], expected, atol=1e-6)
    still = transforms.normalise(np.full((1, 2, 1, 1), 127, np.uint8), "flow")
    assert np.abs(still).max() < 0.01


@pytest.mark.parametrize(
    ("modality", "channels"), [("rgb", 3), ("rgb", 4), ("flow", 2), ("flow", 7), ("flow", 10)]
)
def test_normalise_into_gives_the_same_bits(modality: str, channels: int) -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, channels, 9, 13)).astype(np.uint8)
    expected = transforms.normalise(images, modality).transpose(0, 2, 3, 1)
    out = np.empty((2, 9, 13, channels), np.float32)
    transforms.normalise_into(out, images[..., ::-1][..., ::-1], modality)
    assert out.tobytes() == expected.tobytes()
    wider = np.empty((2, 9, 13, channels + 1), np.float32)
    transforms.normalise_into(wider, images, modality, constant=0.1)
    assert wider[..., :-1].tobytes() == expected.tobytes()
    assert (wider[..., -1] == np.float32(0.1)).all()


def test_normalise_of_mirrored_flow_is_the_negative(images: Images) -> None:
    flow = images[:, :4]
    mirrored = transforms.normalise(transforms.mirror(flow, "flow"), "flow")
    plain = transforms.normalise(flow, "flow")[..., ::-1]
    np.testing.assert_allclose(mirrored[:, 0::2], -plain[:, 0::2], atol=1e-6)
    np.testing.assert_allclose(mirrored[:, 1::2], plain[:, 1::2], atol=1e-6)


def test_normalise_is_torchvision_s(images: Images) -> None:
    torch = pytest.importorskip("torch")
    from torchvision.transforms import v2

    ours = transforms.normalise(images[:, :3], "rgb")
    scaled = torch.from_numpy(images[:, :3]).float() / 255
    theirs = v2.functional.normalize(scaled, transforms.RGB_MEAN, transforms.RGB_STD)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-6)
