"""Action clips: the truth is true, and the pairs differ in what they should only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from flowsight.samples import actions, background, clip, figure, layers

SHAPE = (120, 160)


def make_take(pair: str, *, facing: int = 1, number: int = 1, motion: str = "still") -> clip.Take:
    rng = np.random.default_rng(5)
    look = figure.draw_look(number, rng, 90.0)
    place = background.draw_background(number, SHAPE, rng, 24)
    return clip.Take(
        look=look,
        background=replace(place, motion=motion),
        facing=facing,
        centre=(80.0, 101.0 if pair == "box" else 110.0),
        phase=0.7,
        drift=0.8,
        shape=SHAPE,
    )


def render(action: str, num_frames: int = 8, **options: Any) -> clip.Clip:
    take = make_take(actions.PAIRS[action], **options)
    return clip.render(action, take, num_frames, 12, np.random.default_rng(0))


@pytest.mark.parametrize("action", actions.CLASSES)
def test_flow_agrees_with_an_estimator(action: str) -> None:
    made = render(action, motion="pan", number=0)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in made.frames]
    estimator = cv2.optflow.DualTVL1OpticalFlow_create()
    for index in (0, 5):
        estimate = estimator.calc(grey[index], grey[index + 1], None)
        truth = made.flow[index].astype(np.float32).transpose(1, 2, 0)
        inside = cv2.erode(made.masks[index].astype(np.uint8), np.ones((3, 3))) > 0
        inside &= np.linalg.norm(truth, axis=2) < 4  # thin limbs that run lose the estimator
        error = np.linalg.norm(estimate - truth, axis=2)[inside]
        assert np.median(error) < 0.35
        assert error.mean() < max(0.3, 0.6 * np.linalg.norm(truth, axis=2)[inside].mean())
        outside = cv2.dilate(made.masks[index].astype(np.uint8), np.ones((9, 9))) == 0
        assert np.median(np.linalg.norm(estimate - truth, axis=2)[outside]) < 0.15


@pytest.mark.parametrize("action", ["Run", "Pull", "KickBall", "Phone"])
def test_warping_back_by_the_flow_restores_the_figure(action: str) -> None:
    """Where both frames show the same part, the next frame sampled at p + flow looks like p."""
    made = render(action)
    for index in range(len(made.flow)):
        u, v = made.flow[index].astype(np.float32)
        columns, rows = np.meshgrid(
            np.arange(SHAPE[1], dtype=np.float32), np.arange(SHAPE[0], dtype=np.float32)
        )
        back = cv2.remap(made.frames[index + 1], columns + u, rows + v, cv2.INTER_LINEAR)
        inside = cv2.erode(made.masks[index].astype(np.uint8), np.ones((3, 3))) > 0
        difference = np.abs(back.astype(float) - made.frames[index]).mean(axis=2)[inside]
        assert np.median(difference) < 6


def test_flow_of_the_background_is_its_motion() -> None:
    for motion, above, below in (("still", 0, 0), ("pan", 0.8, 0.8), ("drift", 0.8, 0)):
        made = render("Drink", motion=motion)
        outside = ~made.masks[:-1]
        horizon = round(background.HORIZON * SHAPE[0])
        u, v = made.flow[:, 0].astype(float), made.flow[:, 1].astype(float)
        assert (v[outside] == 0).all()
        assert np.allclose(u[:, :horizon][outside[:, :horizon]], above, atol=1e-3)
        assert np.allclose(u[:, horizon:][outside[:, horizon:]], below, atol=1e-3)


def test_moved_background_is_the_same_picture_elsewhere() -> None:
    place = replace(make_take("gait").background, motion="pan")
    first, moved = background.view(place, 0, 160), background.view(place, 5, 160)
    assert np.array_equal(first[:, :155], moved[:, 5:])


@pytest.mark.parametrize("action", actions.CLASSES)
@pytest.mark.parametrize("facing", [-1, 1])
def test_joints_lie_on_the_figure_and_move_with_the_flow(action: str, facing: int) -> None:
    made = render(action, facing=facing)
    x, y, visibility = np.moveaxis(made.keypoints, 2, 0)
    assert (visibility >= 1).all()
    columns, rows = np.rint(x).astype(int), np.rint(y).astype(int)
    for frame in range(len(made.masks)):
        assert made.masks[frame, rows[frame], columns[frame]].all()
    names = list(clip.KEYPOINTS)
    for name in ("left_wrist", "right_wrist", "right_ankle", "nose"):
        joint = names.index(name)
        for frame in np.nonzero(visibility[:-1, joint] == 2)[0]:
            step = made.keypoints[frame + 1, joint, :2] - made.keypoints[frame, joint, :2]
            flow = made.flow[frame, :, rows[frame, joint], columns[frame, joint]]
            # the pixel's centre is up to 0.7 px from the joint, and parts turn by up to 0.4 rad
            assert np.abs(step - flow).max() < 0.35


def test_boxes_hold_the_mask_exactly() -> None:
    made = render("Kick")
    for mask, (x1, y1, x2, y2) in zip(made.masks, made.boxes.astype(int), strict=True):
        assert mask[y1:y2, x1:x2].sum() == mask.sum() > 0
        assert mask[y1].any() and mask[y2 - 1].any()
        assert mask[:, x1].any() and mask[:, x2 - 1].any()


def test_facing_left_is_the_mirror_image() -> None:
    take = make_take("kick")
    mirrored = replace(take, facing=-1, centre=(SHAPE[1] - 1 - take.centre[0], take.centre[1]))
    right = clip.render("Kick", take, 8, 12, np.random.default_rng(0))
    left = clip.render("Kick", mirrored, 8, 12, np.random.default_rng(0))
    assert np.mean(right.masks != left.masks[:, :, ::-1]) < 0.003
    both = right.masks[:-1] & left.masks[:-1, :, ::-1]
    difference = np.abs(right.flow[:, 0][both] + left.flow[:, 0, :, ::-1][both])
    assert np.mean(difference > 0.02) < 0.01  # a few pixels at edges show another part
    names = list(clip.KEYPOINTS)
    ours, theirs = names.index("right_ankle"), names.index("left_ankle")
    assert np.allclose(
        right.keypoints[:, ours, 0], SHAPE[1] - 1 - left.keypoints[:, theirs, 0], atol=1e-3
    )


@pytest.mark.parametrize(("one", "other"), [("Kick", "KickBall"), ("Drink", "Phone")])
def test_appearance_pairs_move_alike_to_the_pixel(one: str, other: str) -> None:
    first, second = render(one), render(other)
    assert np.array_equal(first.flow, second.flow)
    assert np.array_equal(first.masks, second.masks)
    differing = np.abs(first.frames.astype(int) - second.frames).max(axis=3) > 40
    assert 60 < differing[0].sum() < 500  # the object, and nothing else


def test_pull_is_push_backwards() -> None:
    push, pull = render("Push"), render("Pull")
    assert np.array_equal(push.masks, pull.masks[::-1])
    assert np.abs(push.frames.astype(int) - pull.frames[::-1]).max() < 20  # the camera's noise
    assert push.flow[:, 1][push.masks[:-1]].mean() < -0.5
    assert pull.flow[:, 1][pull.masks[:-1]].mean() > 0.5


def test_run_takes_the_poses_of_walk_faster() -> None:
    look = make_take("gait").look
    ratio = 1.05 / 0.45
    for seconds in (-0.4, 0.1, 0.5):
        run = actions.pose_at("Run", look, seconds, 0.7)
        walk = actions.pose_at("Walk", look, seconds * ratio, 0.7)
        assert _close(run, walk)
    speeds = [np.abs(render(name).flow.astype(float)).max() for name in ("Walk", "Run")]
    assert speeds[1] > 1.8 * speeds[0]


def _close(one: figure.Pose, other: figure.Pose) -> bool:
    return all(
        np.allclose(getattr(one, name), getattr(other, name))
        for name in figure.Pose.__annotations__
    )


def test_most_displacements_stay_under_ten_pixels() -> None:
    for action in actions.CLASSES:
        made = render(action, num_frames=16)
        length = np.linalg.norm(made.flow.astype(float), axis=1)[made.masks[:-1]]
        assert np.percentile(length, 90) < 10
        assert length.max() < 20


def test_long_clips_stay_in_the_frame() -> None:
    take = replace(make_take("gait"), glide=16 / 64)
    made = clip.render("Run", take, 64, 12, np.random.default_rng(0))
    assert made.boxes[:, 0].min() > 5 and made.boxes[:, 2].max() < SHAPE[1] - 5


def test_rigid_layer_moves_as_its_matrix_says() -> None:
    square = layers.Layer(
        name="square",
        matrix=layers.affine(0, (10, 12)),
        outline=layers.rectangle(-4, -4, 4, 4),
        colour=(200, 10, 10),
    )
    turned = replace(square, matrix=layers.affine(np.pi / 2, (13, 12)))
    image, labels = layers.composite(np.zeros((24, 24, 3), np.uint8), [square])
    assert tuple(image[12, 10]) == (200, 10, 10) and labels[12, 10] == 0 and labels[0, 0] == -1
    assert (labels == 0).sum() == 81  # pixel centres from -4 to 4, both included
    flow = layers.exact_flow(labels, [square], [turned], np.zeros((2, 24, 24)))
    assert np.allclose(flow[:, 12, 10], (3, 0))
    # local (0, 2), below the centre, swings forward: from (10, 14) to (15, 12)
    assert np.allclose(flow[:, 14, 10], (5, -2), atol=1e-5)
