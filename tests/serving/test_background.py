"""A network over scenes, served: equal to the stage's own masks, and what it refuses."""

from __future__ import annotations

import base64
import io
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from flowsight.contract import Folders, Job
from flowsight.datasets.scenes import videos
from flowsight.errors import InputError
from flowsight.params import config
from flowsight.serving import bundle, pyfunc_model, scenes
from flowsight.serving.answering import answer
from flowsight.serving.bundle import Bundle
from flowsight.serving.memory import Limits
from flowsight.serving.prediction import predict_video, predict_videos
from flowsight.serving.settings import Settings
from flowsight.systems.background import counts, predict
from flowsight.systems.background import serve as serving
from flowsight.video.decode import UnreadableVideo, decode

from .conftest import moving_video

ROW = "recurrent_median"
VIDEO = "baseline/toy"
COUNT = 40  # the median background is made of 30 frames


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video in changedetection.net's layout: a square that moves; scored from frame 11 on."""
    root = tmp_path_factory.mktemp("scenes")
    folder = root / VIDEO
    for name in ("input", "groundtruth"):
        (folder / name).mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (32, 44, 3)).astype(np.float32)
    place = cv2.GaussianBlur(noise, (0, 0), 3).astype(np.uint8)
    for index in range(COUNT):
        frame, truth = place.copy(), np.zeros((32, 44), np.uint8)
        left = index % 34
        frame[8:20, left : left + 10] = (20, 60, 230)
        truth[8:20, left : left + 10] = 255
        cv2.imwrite(str(folder / f"input/in{index + 1:06d}.jpg"), frame)
        cv2.imwrite(str(folder / f"groundtruth/gt{index + 1:06d}.png"), truth)
    cv2.imwrite(str(folder / "ROI.bmp"), np.full((32, 44), 255, np.uint8))
    (folder / "temporalROI.txt").write_text(f"11 {COUNT}")
    return root


@pytest.fixture(scope="session")
def served_root(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Below it a zip of the frames, a real video, and what must not be read."""
    root = tmp_path_factory.mktemp("served")
    with zipfile.ZipFile(root / "toy.zip", "w") as archive:
        for path in sorted((data / VIDEO / "input").iterdir()):
            archive.write(path, f"some/{path.name}")
    moving_video(root / "walk.avi", 12)
    (root / "text.avi").write_text("I am no video, only a text.\n" * 20)
    with zipfile.ZipFile(root / "empty.zip", "w") as archive:
        archive.writestr("readme.txt", "no pictures")
    with zipfile.ZipFile(root / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", b"\0" * 3_000_000)
    whole = (root / "toy.zip").read_bytes()
    (root / "broken.zip").write_bytes(whole[:200] + b"x" * 400 + whole[600:])
    return root


@pytest.fixture
def settings(served_root: Path) -> Settings:
    limits = Limits(max_bytes=10**6, max_sec=2.0, max_frames=50)
    return Settings(root=served_root, urls="0", limits=limits, max_videos=7, threads=None)


def masks_of(content: bytes) -> list[np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        pictures = [np.frombuffer(archive.read(name), np.uint8) for name in names]
    return [cv2.imdecode(one, cv2.IMREAD_GRAYSCALE) > 0 for one in pictures]


def test_equals_the_stage(tree: Path, data: Path, served_root: Path, over_scenes: Bundle,
                          tmp_path: Path) -> None:  # fmt: skip
    """Every scored frame's mask to the bit, of a folder and of a zip of the same pictures."""
    params = config.load(tree / "params.yaml")
    video = videos.open_video(data, VIDEO)
    scenes = replace(params.scenes, videos=(VIDEO,), splits={"both": (VIDEO,)})
    folders = {"scenes": data, "checkpoint": tree / f"checkpoints/sample_scenes/{ROW}-both"}
    predict.predict(
        Job(system="background", row_name=ROW, split="both", folders=Folders(folders),
            params=replace(params, scenes=scenes), out=tmp_path / "found")
    )  # fmt: skip
    for path in (data / VIDEO, data / VIDEO / "input", served_root / "toy.zip"):
        found = predict_video(over_scenes, path, attention=True)
        masks = masks_of(found.save_masks(tmp_path, "masks").read_bytes())
        assert len(masks) == len(found.shares) == COUNT
        for index in video.temporal_roi:
            expected = counts.read_mask(tmp_path / "found", VIDEO, index)
            np.testing.assert_array_equal(masks[index], expected)
        np.testing.assert_allclose(found.shares, [mask.mean() for mask in masks])
        assert 0.01 < np.mean(found.shares) < 0.99 and len(set(found.shares)) > 5


def test_a_video_is_its_decoded_frames(
    served_root: Path, over_scenes: Bundle, tmp_path: Path
) -> None:
    for index, frame in enumerate(decode(served_root / "walk.avi", None)):
        cv2.imwrite(str(tmp_path / f"{index:03d}.png"), frame[..., ::-1])
    of_video = predict_video(over_scenes, served_root / "walk.avi", attention=True)
    of_pictures = predict_video(over_scenes, tmp_path, attention=True)
    assert of_video.masks == of_pictures.masks and len(of_video.masks) == 12
    assert (of_video.fps, of_pictures.fps) == (10.0, None)


def test_the_bundle_says_whence(tree: Path, scenes_folder: Path, over_scenes: Bundle) -> None:
    described = json.loads((scenes_folder / "model.json").read_text())
    assert (described["system"], described["row"]) == ("background", ROW)
    assert (described["dataset"], described["split"]) == ("sample_scenes", "both")
    source = tree / f"checkpoints/sample_scenes/{ROW}-both/model.pt"
    assert (scenes_folder / f"{ROW}.pt").read_bytes() == source.read_bytes()
    assert not over_scenes.served.network.training
    tags = serving.tags(described)
    assert tags == {"row": ROW, "input": "colour, median of 30 frames", "threshold": "0.5"}


def test_refuses_weights_of_another_row(tree: Path, scenes_folder: Path, tmp_path: Path) -> None:
    """The one without a median has half the channels."""
    broken = Path(shutil.copytree(scenes_folder, tmp_path / "broken"))
    other = tree / "checkpoints/sample_scenes/recurrent-both/model.pt"
    shutil.copy(other, broken / f"{ROW}.pt")
    described = json.loads((broken / "model.json").read_text())
    described["files"][ROW]["sha256"] = bundle.files.sha256(other)
    (broken / "model.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match=f"expected the weights of its row in .*{ROW}.pt, got"):
        bundle.load_bundle(broken)


def test_a_servers_answers(over_scenes: Bundle, settings: Settings, served_root: Path) -> None:
    content = base64.b64encode((served_root / "walk.avi").read_bytes()).decode()
    names = ("toy.zip", "text.avi", "empty.zip", "bomb.zip", "broken.zip")
    rows = [{"video": name, "masks": name == "toy.zip"} for name in names]
    good, *bad, sent = answer(over_scenes, [*rows, {"content": content}], settings)
    signature, example = pyfunc_model.signature("background")
    assert list(example) == ["video", "masks"]
    for one in (good, *bad, sent):
        assert set(one) == set(signature.outputs.input_names())
    expected = predict_video(over_scenes, served_root / "toy.zip", attention=True)
    assert good["error"] is None and good["shares"] == list(expected.shares)
    assert good["moving_share"] == pytest.approx(np.mean(expected.shares))
    masks = masks_of(base64.b64decode(good["masks"]))
    assert [mask.mean() for mask in masks] == list(expected.shares)
    assert (good["width"], good["height"], good["num_frames"]) == (44, 32, COUNT)
    assert (sent["num_frames"], sent["duration_sec"], sent["masks"]) == (12, 1.2, None)
    text, empty, bomb, broken = (one["error"] for one in bad)
    assert "readable video, got not a video" in text
    assert "expected pictures (.jpg" in empty and "in empty.zip, found none" in empty
    assert "pictures of at most 1 MB, got more" in bomb
    assert "expected" in broken and all(one["shares"] is None for one in bad)
    assert str(served_root) not in json.dumps([good, *bad, sent], allow_nan=False)


@pytest.mark.slow
def test_as_mlflow_stores_it(
    over_scenes: Bundle,
    scenes_folder: Path,
    served_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Saved as code, loaded, asked by path: the masks are the same to the bit."""
    import mlflow
    import pandas as pd

    signature, example = pyfunc_model.signature("background")
    mlflow.pyfunc.save_model(
        tmp_path / "model",
        python_model=pyfunc_model.__file__,
        pip_requirements=[],
        artifacts={pyfunc_model.ARTIFACT: str(scenes_folder)},
        signature=signature,
        input_example=example,
    )
    monkeypatch.setenv("FLOWSIGHT_SERVE_ROOT", str(served_root))
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    (one,) = model.predict(pd.DataFrame({"video": ["toy.zip"], "masks": [True]}))
    expected = predict_video(over_scenes, served_root / "toy.zip", attention=True)
    found = masks_of(base64.b64decode(one["masks"]))
    wanted = masks_of(expected.save_masks(tmp_path, "toy").read_bytes())
    np.testing.assert_array_equal(found, wanted)


def test_limits(over_scenes: Bundle, served_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: str, says: str, **limits: float) -> None:
        with pytest.raises(InputError, match=says):
            predict_video(over_scenes, served_root / name, limits=Limits(**limits))  # type: ignore[arg-type]

    refused("walk.avi", "1.2 s where at most 1 s", max_sec=1.0)
    refused("walk.avi", "more than 5 frames", max_frames=5)
    refused("toy.zip", "at most 39 frames, got 40", max_frames=39)
    refused("toy.zip", "at most 40 px a side", max_side_px=40)
    refused("toy.zip", "MB where at most 0.001 MB", max_bytes=1000)
    monkeypatch.setattr(scenes, "MAX_FRAME_PX", 1000)
    refused("toy.zip", "at most 1,000 pixels, got 44 x 32")
    refused("walk.avi", "at most 1,000 pixels, got 96 x 72")


def test_frames_of_several_sizes(over_scenes: Bundle, tmp_path: Path) -> None:
    for index, width in enumerate((40, 41)):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.zeros((30, width, 3), np.uint8))
    with pytest.raises(InputError, match="expected frames of one size"):
        predict_video(over_scenes, tmp_path)


def test_a_film_and_several_videos(over_scenes: Bundle, served_root: Path, tmp_path: Path) -> None:
    names = [served_root / name for name in ("walk.avi", "text.avi", "toy.zip")]
    walk, none, toy = predict_videos(over_scenes, names, attention=True)
    assert isinstance(none, UnreadableVideo)
    for found, count in ((walk, 12), (toy, COUNT)):
        film = tmp_path / "seen.avi"
        serving.write_overlay(found, film)
        seen = list(decode(film, None))
        assert len(seen) == count and seen[0].shape[:2] == found.shape
        red = np.array([s[..., 0].astype(int) - s[..., 1] for s in seen])
        moving = np.array([cv2.imdecode(np.frombuffer(m, np.uint8), 0) > 0 for m in found.masks])
        assert red[moving].mean() > red[~moving].mean() + 30
    with pytest.raises(InputError, match="no views or crops of a scene"):
        predict_video(over_scenes, names[0], num_views=2)
