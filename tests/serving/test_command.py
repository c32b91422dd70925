"""`flowsight predict` as a user calls it."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ruamel.yaml import YAML

from flowsight import errors
from flowsight.cli import app
from flowsight.serving import prediction
from flowsight.serving.bundle import Bundle

from .conftest import CLASSES, soft_picture


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """flowsight(*arguments) -> (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        code = 0
        try:
            errors.guard(lambda: app([*map(str, arguments)], standalone_mode=False))
        except SystemExit as ended:
            code = int(str(ended.code))
        return (code, *capsys.readouterr())

    return run


def test_json(command: Any, folder: Path, videos: Path, system: Bundle) -> None:
    video = videos / "walk.avi"
    code, out, _ = command("predict", video, "--model", folder, "--top", 2, "--json")
    assert code == 0
    (record,) = json.loads(out)
    expected = prediction.predict_video(system, video)
    assert record["video"] == str(video) and record["error"] is None
    assert record["classes"] == [name for name, _ in expected.top(2)]
    np.testing.assert_allclose(record["scores"], [s for _, s in expected.top(2)], atol=1e-5)
    assert set(record["probabilities"]) == {"spatial", "temporal", "fused"}
    assert record["num_frames"] == 8


def test_table(command: Any, folder: Path, videos: Path, system: Bundle) -> None:
    code, out, _ = command("predict", videos / "walk.avi", "--model", folder)
    assert code == 0
    found = prediction.predict_video(system, videos / "walk.avi")
    lines = [line for line in out.splitlines() if "%" in line]
    assert len(lines) == len(CLASSES)
    for line, (name, share) in zip(lines, found.top(5), strict=True):
        assert name in line and f"{share:.1%}" in line


def test_a_network_over_clips(
    command: Any, clips_folder: Path, videos: Path, over_clips: Bundle, tmp_path: Path
) -> None:
    """JSON, table and film; two networks make two panels, one makes one."""
    video, film = videos / "walk.avi", tmp_path / "seen.avi"
    options = ("--model", clips_folder, "--system", "residual3d", "--top", 2)
    code, out, err = command("predict", video, *options, "--json", "--overlay", film)
    assert code == 0 and f"{film} is ready" in err
    (record,) = json.loads(out)
    expected = prediction.predict_video(over_clips, video)
    assert record["classes"] == [name for name, _ in expected.top(2)]
    np.testing.assert_allclose(record["scores"], [s for _, s in expected.top(2)], atol=1e-5)
    assert list(record["probabilities"]) == ["network"] and record["error"] is None
    capture = cv2.VideoCapture(str(film))
    frames = [capture.read()[1] for _ in range(8)]
    assert not capture.read()[0] and frames[0].shape == (240 + 28, 320, 3)
    code, out, _ = command("predict", video, *options)
    lines = [line for line in out.splitlines() if "%" in line]
    assert code == 0 and len(lines) == 2
    for line, (name, share) in zip(lines, expected.top(2), strict=True):
        assert name in line and f"{share:.1%}" in line


def test_a_film_without_attention(
    command: Any, tree: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working tree's only network over clips has none: said before the video is read."""
    work = Path(shutil.copytree(tree, tmp_path / "work"))
    yaml = YAML()
    values = yaml.load(work / "params.yaml")
    del values["systems"]["residual3d"]["rows"]["resnet3d_attention"]
    yaml.dump(values, work / "params.yaml")
    monkeypatch.chdir(work)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    film, options = tmp_path / "film.avi", ("--system", "residual3d")
    code, out, err = command("predict", videos / "walk.avi", *options, "--overlay", film)
    assert (code, out, film.exists()) == (2, "", False)
    assert "no champion (models:/residual3d@champion): using the working tree's" in err
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: expected a network with spatial attention to show, got row")
    code, _, _ = command("predict", videos / "walk.avi", *options)
    assert code == 0


def test_a_bad_video_does_not_stop_the_others(command: Any, folder: Path, videos: Path) -> None:
    names = [videos / n for n in ("text.avi", "walk.avi", "absent.avi", "in.avi")]
    code, out, err = command("predict", *names, "--model", folder, "--json")
    assert code == 2
    records = json.loads(out)
    assert [r["error"] is None for r in records] == [False, True, False, True]
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: 2 of 4 videos could not be predicted: ")
    assert "text.avi" in last and "absent.avi" in last and "walk.avi" not in last
    assert "Traceback" not in err


def test_one_bad_video(command: Any, folder: Path, videos: Path) -> None:
    code, _, err = command("predict", videos / "noise.avi", "--model", folder)
    assert code == 2
    assert err.strip().splitlines()[-1].startswith("error: expected a readable video, got")


@pytest.mark.parametrize("ending", [".webm", ".mp4"])
def test_overlay(ending: str, command: Any, folder: Path, videos: Path, tmp_path: Path) -> None:
    film = tmp_path / f"new/out{ending}"
    code, _, err = command("predict", videos / "walk.avi", "--model", folder, "--overlay", film)
    assert code == 0 and f"{film} is ready" in err
    capture = cv2.VideoCapture(str(film))
    count, first = 0, None
    while True:
        ok, frame = capture.read()
        if not ok:
            break
        first, count = frame if first is None else first, count + 1
    assert count == 8
    assert first.shape == (240 + 28, 2 * 320 + 4, 3)
    assert (first[:28] < 100).any()  # the title
    saturation = cv2.cvtColor(first[40:], cv2.COLOR_BGR2HSV)[..., 1]
    assert saturation.mean() > 60  # the map's colours, left and right
    assert list(film.parent.iterdir()) == [film]


def test_overlays_of_several(command: Any, folder: Path, videos: Path, tmp_path: Path) -> None:
    names = [videos / "walk.avi", videos / "in.avi", videos / "text.avi"]
    code, _, _ = command("predict", *names, "--model", folder, "--overlay", tmp_path / "o.avi")
    assert code == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o_in.avi", "o_walk.avi"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--system", "two_stream", "--overlay", "film.mov"], "ending with .webm, .mp4, .avi"),
        ([], "expected --system NAME (background, residual3d, saliency, two_stream) or --model"),
        (["--model", "nowhere"], "expected a folder or models:/NAME@ALIAS"),
        (["--model", "{root}"], "expected a bundle of flowsight"),
        (["--model", "models:/two_stream@champion"], "no registry at"),
        (["--system", "residul3d"], "got 'residul3d'; did you mean 'residual3d'?"),
        (
            ["--system", "x"],
            "expected a system (background, residual3d, saliency, two_stream), got",
        ),
        (["--model", "{folder}", "--system", "residual3d"], "which is of two_stream"),
    ],
)
def test_wrong_options(
    options: list[str],
    message: str,
    command: Any,
    videos: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")
    monkeypatch.chdir(tmp_path)
    options = [option.format(root=videos, folder=folder) for option in options]
    code, _, err = command("predict", videos / "walk.avi", *options)
    assert code == 2
    assert message in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_without_a_champion_the_working_tree(
    command: Any,
    tree: Path,
    videos: Path,
    system: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = Path(shutil.copytree(tree, tmp_path / "work"))
    (work / "dvc.lock").unlink()
    monkeypatch.chdir(work)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    code, out, err = command("predict", videos / "walk.avi", "--json")
    assert code == 0
    assert "no champion (models:/two_stream@champion): using the working tree's" in err
    assert "(sample, split 1)" in err
    expected = prediction.predict_video(system, videos / "walk.avi")
    np.testing.assert_allclose(json.loads(out)[0]["scores"][0], expected.top(1)[0][1], atol=1e-5)
    shutil.rmtree(work / "checkpoints")
    code, _, err = command("predict", videos / "walk.avi")
    assert code == 2 and "expected a checkpoint in" in err and "flowsight repro" in err


@pytest.mark.slow
def test_the_champion_of_a_registry(
    command: Any,
    folder: Path,
    videos: Path,
    system: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mlflow

    from flowsight.serving import pyfunc_model

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_registry_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.create_experiment("test", artifact_location=(tmp_path / "store").as_uri())
    mlflow.set_experiment("test")
    signature, example = pyfunc_model.signature("two_stream")
    with mlflow.start_run():
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=pyfunc_model.__file__,
            artifacts={pyfunc_model.ARTIFACT: str(folder)},
            signature=signature,
            input_example=example,
            pip_requirements=[],
            registered_model_name="two_stream",
        )
    (tmp_path / "nothing").mkdir()
    monkeypatch.chdir(tmp_path / "nothing")
    mlflow.set_registry_uri("http://127.0.0.1:9")  # opened before in this process, now gone
    code, _, err = command("predict", videos / "walk.avi", "--model", "models:/two_stream@champion")
    assert code == 2 and "models:/two_stream@champion in the registry, got:" in err
    code, _, err = command("predict", videos / "walk.avi", "--model", "models:/two_steam/1")
    assert code == 2 and "models:/two_steam/1 in the registry, got:" in err
    assert "did you mean 'two_stream'?" in err
    client = mlflow.MlflowClient()
    version = logged.registered_model_version
    client.set_registered_model_alias("two_stream", "champion", version)
    code, out, err = command("predict", videos / "walk.avi", "--system", "two_stream", "--json")
    assert code == 0 and "working tree" not in err
    expected = prediction.predict_video(system, videos / "walk.avi")
    np.testing.assert_allclose(json.loads(out)[0]["scores"][0], expected.top(1)[0][1], atol=1e-5)


@pytest.mark.slow
def test_a_registry_that_is_away(
    command: Any, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.chdir(tmp_path)
    code, _, err = command("predict", videos / "walk.avi", "--system", "two_stream")
    assert code == 75
    assert "expected the registry at http://127.0.0.1:9 to answer" in err
    assert "Traceback" not in err


def test_images(command: Any, images_folder: Path, over_images: Bundle, tmp_path: Path) -> None:
    """JSON, table, mask and picture; one that is no image does not stop the other."""
    image, text = tmp_path / "spots.png", tmp_path / "text.png"
    cv2.imwrite(str(image), soft_picture(40, 70, 1))
    text.write_text("no image")
    options = ("--model", images_folder, "--system", "saliency", "--masks", tmp_path / "found")
    code, out, err = command("predict", image, text, *options, "--json")
    assert code == 2 and "1 of 2 images could not be predicted" in err
    good, bad = json.loads(out)
    expected = prediction.predict_video(over_images, image).mask
    assert (good["image"], good["width"], good["height"]) == (str(image), 70, 40)
    assert good["salient_share"] == pytest.approx(expected.mean()) and good["error"] is None
    assert bad["image"] == str(text) and "expected an image" in bad["error"]
    mask = cv2.imread(str(tmp_path / "found/spots.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask > 0, expected)
    assert not (tmp_path / "found/text.png").exists()
    code, out, err = command("predict", image, *options, "--overlay", tmp_path / "seen.png")
    assert code == 0 and "70 x 40" in out and f"{expected.mean():.1%}" in out
    assert cv2.imread(str(tmp_path / "seen.png")).shape == (40, 70, 3)
    code, _, err = command("predict", image, *options, "--overlay", tmp_path / "seen.webm")
    assert code == 2 and "--overlay ending with .png, got 'seen.webm'" in err


def test_scenes(command: Any, scenes_folder: Path, over_scenes: Bundle, videos: Path,
                tmp_path: Path) -> None:  # fmt: skip
    """Table, masks and film."""
    film = tmp_path / "seen.avi"
    options = ("--model", scenes_folder, "--masks", tmp_path, "--overlay", film)
    code, out, err = command("predict", videos / "walk.avi", *options)
    assert code == 0 and f"{film} is ready" in err and f"{tmp_path / 'walk.zip'} is ready" in err
    expected = prediction.predict_video(over_scenes, videos / "walk.avi")
    assert "96 x 72" in out and f"{np.mean(expected.shares):.1%}" in out
    with zipfile.ZipFile(tmp_path / "walk.zip") as archive:
        assert [n for n in archive.namelist() if n.endswith(".png")] == [
            f"mask_{k:06d}.png" for k in range(1, 9)
        ]
    twice = (videos / "walk.avi", tmp_path / "walk.avi")
    code, _, err = command("predict", *twice, "--model", scenes_folder, "--masks", tmp_path)
    assert code == 2 and "different names for --masks, got walk twice" in err


def test_masks_of_classes(command: Any, clips_folder: Path, videos: Path, tmp_path: Path) -> None:
    options = ("--model", clips_folder, "--masks", tmp_path / "found")
    code, _, err = command("predict", videos / "walk.avi", *options)
    assert code == 2 and "a model that finds masks for --masks, got residual3d" in err
    assert not (tmp_path / "found").exists()
