"""Drawn faces: the same bytes each time, exact truth, persons on one side only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from flowsight.samples import exact, face, face_looks
from flowsight.samples.face_looks import CLASSES, Gesture

FRONT = face.View(noise=0.0)
VARYING = {"sin", "cos", "tan", "tanh", "arccos", "arcsin", "arctan", "arctan2", "hypot", "exp",
           "log", "power", "linalg", "dot", "matmul", "einsum", "inner", "tensordot"}  # fmt: skip


def drawn(
    gesture: Gesture, view: face.View = FRONT, size_px: int = 96, person: int = 1
) -> face.Face:
    look = face.draw_look(3, person)
    return face.render_face(look, gesture, view, size_px, np.random.default_rng(0))


def test_a_folder_in_fer2013s_layout_with_persons_on_one_side(tmp_path: Path) -> None:
    face.write_dataset(tmp_path, seed=3, num_train=2, num_test=1, num_pictures=2)
    pictures = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.png"))
    assert len(pictures) == 3 * len(CLASSES) * 2
    assert pictures[0] == "test/angry/p02_0.png"
    image = cv2.imread(str(tmp_path / pictures[0]), cv2.IMREAD_UNCHANGED)
    assert image is not None and (image.shape, image.dtype) == ((48, 48), np.uint8)
    lines = (tmp_path / "groups.csv").read_text().splitlines()
    assert lines[0] == "image,group" and len(lines) == 1 + len(pictures)
    listed = dict(line.split(",") for line in lines[1:])
    assert sorted(listed) == pictures
    sides = {
        side: {g for i, g in listed.items() if i.startswith(side)} for side in ("train", "test")
    }
    assert sides == {"train": {"p00", "p01"}, "test": {"p02"}}
    assert {name.split("/")[1] for name in pictures} == set(CLASSES)


def test_the_same_bytes_twice_and_others_for_another_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        (tmp_path / name).mkdir()
        face.write_dataset(tmp_path / name, seed=seed, num_train=1, num_test=1, num_pictures=1)
    files = {
        name: [p.read_bytes() for p in sorted((tmp_path / name).rglob("*.*"))] for name in "abc"
    }
    assert files["a"] == files["b"]
    assert files["a"] != files["c"]


class Nudged:
    """NumPy on another processor: transcendental functions differ in the last bit or two."""

    def __getattr__(self, name: str) -> Any:
        function = getattr(np, name)
        if name not in VARYING:
            return function
        rng = np.random.default_rng(1)

        def other(*values: Any) -> Any:
            result = function(*values)
            return result + np.spacing(result) * rng.integers(-2, 3, np.shape(result))

        return other


def test_last_bits_of_functions_change_no_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    def everything() -> list[bytes]:
        looks = [face.draw_look(5, person) for person in range(4)]
        faces = [
            face.picture(look, name, 48, seed=5, index=8 * i + k, glasses=k % 2 == 0)
            for i, look in enumerate(looks)
            for k, name in enumerate(CLASSES)
        ]
        return [f.image.tobytes() + f.features.tobytes() + f.landmarks.tobytes() for f in faces]

    here = everything()
    monkeypatch.setattr(exact, "np", Nudged())
    assert everything() == here


def test_landmarks_lie_on_what_they_name() -> None:
    found = drawn(Gesture(), size_px=160)
    look = face.draw_look(3, 1)
    for number, name in ((0, "iris"), (1, "iris"), (3, "skin"), (4, "skin")):
        x, y = np.rint(found.landmarks[number]).astype(int)
        if name == "iris":
            assert found.image[y, x].max() < 60, "the pupil is in the middle of an eye"
        assert found.features[y - 2 : y + 3, x - 2 : x + 3].any()
    left, right = found.landmarks[0], found.landmarks[1]
    half = FRONT.scale * 160
    assert right[0] - left[0] == pytest.approx(2 * look.eye_gap * half)
    assert left[1] == right[1]
    x1, y1, x2, y2 = found.box
    assert y2 - y1 == pytest.approx(2 * half)
    assert x2 - x1 == pytest.approx(2 * look.face_width * half, rel=0.02)
    rows, columns = np.nonzero(found.features)
    assert y1 < rows.min() and rows.max() < y2 and x1 < columns.min() and columns.max() < x2
    assert 0.02 < found.features.mean() < 0.25


def test_yaw_moves_the_nose_more_than_the_eyes_and_mirrors() -> None:
    angles = (-0.5, 0.0, 0.5)
    left, front, right = (drawn(Gesture(), replace(FRONT, yaw_rad=a)).landmarks for a in angles)
    assert left[2, 0] < front[2, 0] < right[2, 0]
    assert right[2, 0] - front[2, 0] > right[:2, 0].mean() - front[:2, 0].mean() > 0
    assert np.ptp(right[:2, 0]) < np.ptp(front[:2, 0]), "a turned head shows its eyes nearer"
    middle = (96 - 1) / 2
    np.testing.assert_allclose(right[2, 0] - middle, middle - left[2, 0], atol=1e-9)


def test_expressions_are_what_they_are_called() -> None:
    def corners(name: str) -> np.ndarray:
        rng = np.random.default_rng(1)
        return drawn(face.draw_gesture(name, rng)).landmarks[3:, 1]

    neutral = corners("neutral").mean()
    assert corners("happy").mean() < neutral < corners("sad").mean()
    assert abs(np.ptp(corners("happy"))) < 0.1
    assert np.ptp(corners("contempt")) > 3, "one corner goes up alone"
    raised = {name: face_looks.draw_gesture(name, np.random.default_rng(2)) for name in CLASSES}
    assert raised["surprise"].opening > 2 * raised["happy"].opening
    assert raised["angry"].brow_tilt > 0 > raised["sad"].brow_tilt
    assert raised["fear"].eye_open > 1.2 > raised["disgust"].eye_open


def test_glasses_and_views_do_not_hang_on_person_or_expression() -> None:
    views = [face.draw_view(np.random.default_rng([1, i])) for i in range(400)]
    assert 0.18 < np.mean([v.glasses for v in views]) < 0.33
    assert max(abs(v.yaw_rad) for v in views) <= face.MAX_YAW_RAD
    looks = {face.draw_look(3, person) for person in range(48)}
    assert len(looks) == 48


@pytest.mark.parametrize("size_px", [24, 48, 97, 224])
def test_any_size(size_px: int) -> None:
    found = face.picture(face.draw_look(3, 0), "happy", size_px, seed=1, index=0)
    assert found.image.shape == (size_px, size_px, 3) and found.image.dtype == np.uint8
    assert found.features.shape == (size_px, size_px) and found.features.any()
