"""A server's answers: one a row, whatever the rows are."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from flowsight.serving import prediction, pyfunc_model
from flowsight.serving.answering import answer
from flowsight.serving.bundle import Bundle
from flowsight.serving.memory import Limits
from flowsight.serving.settings import Settings
from flowsight.systems.two_stream import served

from .conftest import CLASSES

FIELDS = {
    "video",
    "label",
    "score",
    "classes",
    "scores",
    "probabilities",
    "num_frames",
    "duration_sec",
    "seconds",
    "attention",
    "error",
}


@pytest.fixture
def settings(videos: Path) -> Settings:
    limits = Limits(max_bytes=10**6, max_sec=3.5)
    return Settings(root=videos, urls="0", limits=limits, max_videos=4, threads=None)


def test_path_and_bytes_are_the_same_video(
    system: Bundle, settings: Settings, videos: Path
) -> None:
    content = base64.b64encode((videos / "walk.avi").read_bytes()).decode()
    rows = [{"video": "walk.avi", "top": 2}, {"video": None, "content": content, "top": np.nan}]
    by_path, by_bytes = answer(system, rows, settings)
    assert set(by_path) == set(by_bytes) == FIELDS
    assert by_path["error"] is None and by_bytes["error"] is None
    assert (by_path["video"], by_bytes["video"]) == ("walk.avi", None)
    assert by_path["probabilities"] == by_bytes["probabilities"]
    assert (len(by_path["classes"]), len(by_bytes["classes"])) == (2, 3)
    assert by_path["label"] == by_path["classes"][0]
    assert by_path["score"] == by_path["scores"][0] == max(by_path["scores"])
    assert sorted(by_bytes["classes"]) == sorted(CLASSES)
    expected = prediction.predict_video(system, videos / "walk.avi").probs["fused"]
    found = [by_path["probabilities"]["fused"][name] for name in CLASSES]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    json.dumps([by_path, by_bytes], allow_nan=False)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"video": "text.avi"}, "readable video, got not a video"),
        ({"video": "noise.avi"}, "readable video, got"),
        ({"video": "empty.avi"}, "readable video, got empty file"),
        ({"video": "absent.avi"}, "found no file"),
        ({"video": "../secret.avi"}, "below the served folder"),
        ({"video": "out.avi"}, "below the served folder"),
        ({"video": "deep/long.mp4"}, "4.0 s where at most 3.5 s"),
        ({"content": base64.b64encode(b"no video").decode()}, "readable video, got not a video"),
        ({"content": "?"}, "as base64"),
        ({}, "either `video` or `content`"),
        ({"video": "http://localhost/x.avi"}, "takes no URLs"),
        ({"video": "walk.avi", "top": 0}, "`top` of at least 1"),
        ({"video": "walk.avi", "top": 1.5}, "`top` as a whole number"),
        ({"video": "walk.avi", "top": float("inf")}, "`top` as a whole number"),
        ({"video": "walk.avi", "top": "3"}, "`top` as a whole number"),
        ({"video": "walk.avi", "attention": "yes"}, "`attention` as true or false"),
    ],
)
def test_a_bad_row_is_answered_and_the_others_too(
    row: dict[str, Any], message: str, system: Bundle, settings: Settings, videos: Path
) -> None:
    good = {"video": "in.avi"}
    first, bad, last = answer(system, [good, row, good], settings)
    assert message in bad["error"]
    assert "\n" not in bad["error"] and str(videos) not in bad["error"]
    assert set(bad) == FIELDS and bad["label"] is None and bad["scores"] is None
    assert first["error"] is None and last["error"] is None
    assert first["label"] == last["label"]


def test_a_bug_is_answered_and_logged(
    system: Bundle,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*args: Any) -> None:
        raise ZeroDivisionError("inner secret")

    monkeypatch.setattr(served, "_maps", fail)
    found = answer(system, [{"video": "walk.avi"}, {"video": "text.avi"}], settings)
    assert all("internal error (ZeroDivisionError)" in a["error"] for a in found)
    assert "inner secret" not in json.dumps(found)
    assert "inner secret" in capsys.readouterr().err


def test_too_many_videos(system: Bundle, settings: Settings) -> None:
    found = answer(system, [{"video": "walk.avi"}] * 5, settings)
    assert [a["error"] for a in found] == ["expected at most 4 videos in a request, got 5"] * 5


def test_attention_on_request(system: Bundle, settings: Settings) -> None:
    rows = [{"video": "walk.avi", "attention": np.True_}, {"video": "walk.avi"}]
    with_maps, without = answer(system, rows, settings)
    assert without["attention"] is None
    shown = with_maps["attention"]
    assert shown["frames"] == [1, 3, 5, 7]
    for stream in ("spatial", "temporal"):
        maps = np.array(shown[stream]["maps"])
        assert maps.ndim == 3 and len(maps) == 4
        assert maps.min() >= 0 and maps.max() == 255
        data = np.frombuffer(base64.b64decode(shown[stream]["picture"]), np.uint8)
        assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape == (54, 4 * 72, 3)
    json.dumps(with_maps, allow_nan=False)


@pytest.mark.parametrize(
    "given",
    [
        pd.DataFrame({"video": ["a", "b"], "top": [1, 1]}),
        {"video": ["a", "b"], "top": [1, 1]},
        [{"video": "a", "top": 1}, {"video": "b", "top": 1}],
    ],
)
def test_rows_of_every_kind_of_input(given: Any) -> None:
    rows = pyfunc_model.rows_of(given)
    assert rows == [{"video": "a", "top": 1}, {"video": "b", "top": 1}]


def test_rows_of_one_mapping() -> None:
    assert pyfunc_model.rows_of({"video": "a"}) == [{"video": "a"}]


def test_signature() -> None:
    signature, example = pyfunc_model.signature("two_stream")
    assert signature.inputs.input_names() == ["video", "content", "top", "attention"]
    assert all(not column.required for column in signature.inputs)
    assert set(signature.outputs.input_names()) == FIELDS
    from mlflow.models.utils import _enforce_schema

    enforced = _enforce_schema(example, signature.inputs)
    assert len(enforced) == 1
