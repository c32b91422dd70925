"""Localisation, overlays and figures, each on exact small cases."""

from pathlib import Path

import numpy as np
import pytest

from flowsight.classifiers import localization
from flowsight.evaluation import figures, overlays
from flowsight.evaluation.overlays import Panels


def test_measure_of_a_perfect_map() -> None:
    masks = np.zeros((3, 8, 8), bool)
    masks[:2, :4, :4] = True  # nobody in the third frame
    maps = (masks * 255).astype(np.uint8)
    values = localization.measure(maps, masks)
    assert values is not None
    assert values.tolist() == [2, 1.0, 1.0, 1.0, 0.25]


def test_measure_scales_small_maps_to_the_mask() -> None:
    masks = np.zeros((1, 8, 8), bool)
    masks[0, :4, :4] = True
    maps = np.zeros((1, 2, 2), np.uint8)
    maps[0, 0, 0] = 255
    values = localization.measure(maps, masks)
    assert values is not None
    assert values[1] == 1.0  # the strongest point is inside
    assert values[2] > 0.6  # most of the energy, blurred over the border


def test_measure_of_a_constant_map_is_chance() -> None:
    masks = np.zeros((1, 8, 8), bool)
    masks[0, 2:4] = True
    values = localization.measure(np.full((1, 4, 4), 9, np.uint8), masks)
    assert values is not None
    assert values[1:] == pytest.approx([0.25] * 4)


def test_measure_without_an_actor_is_none() -> None:
    assert localization.measure(np.ones((2, 2, 2), np.uint8), np.zeros((2, 4, 4), bool)) is None


def test_overlays_take_turns_over_classes() -> None:
    clips = ["b/2", "a/1", "a/2", "b/1", "c/1"]
    labels = [clip[0] for clip in clips]
    assert overlays.choose_clips(clips, labels, 4) == ["a/1", "b/1", "c/1", "a/2"]
    assert overlays.choose_clips(clips, labels, 99) == ["a/1", "b/1", "c/1", "a/2", "b/2"]
    assert overlays.choose_clips([], [], 3) == []


def test_colour_wheel_rest_is_white_and_right_is_red() -> None:
    flow = np.zeros((2, 1, 3), np.float32)
    flow[0, 0, 1], flow[0, 0, 2] = 2.0, -2.0
    colours = overlays.colour_wheel(flow, 2.0)[0].tolist()
    assert colours[0] == [255, 255, 255]
    assert colours[1] == [255, 0, 0]
    assert colours[2][0] == 0 and colours[2][1] > 200  # the opposite hue


def test_spotlight_keeps_attended_pixels_and_its_input() -> None:
    image = np.full((40, 40, 3), 200, np.uint8)
    attention = np.zeros((40, 40), np.float32)
    attention[10:30, 10:30] = 1
    lit = overlays.spotlight(image, attention, shade=(0, 0, 0))
    assert lit[20, 20].tolist() == [200, 200, 200]
    assert lit[2, 2].max() < 60
    assert (image == 200).all()


def test_pictures_are_the_same_bytes_twice(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    panels = Panels(
        frame_index=0, frame=image, frame_attended=image, flow=image, flow_attended=image
    )
    counts = np.diag([3, 2]) + 1
    for run in ("a", "b"):
        figures.overlay_figure(
            panels, label="walk", predicted="run", prob=0.5, path=tmp_path / f"{run}-overlay.png"
        )
        figures.confusion_figure({"fused": counts}, ["run", "walk"], tmp_path / f"{run}-conf.png")
    for name in ("overlay.png", "conf.png"):
        first = (tmp_path / f"a-{name}").read_bytes()
        assert first == (tmp_path / f"b-{name}").read_bytes()
        assert b"Software" not in first
