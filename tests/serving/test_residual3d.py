"""A network over clips, served: equal to the stages' own numbers and maps, and what it refuses."""

from __future__ import annotations

import base64
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from ruamel.yaml import YAML

from flowsight.classifiers import scores
from flowsight.datasets.clips import flow as flow_packing
from flowsight.datasets.clips import frames
from flowsight.errors import InputError
from flowsight.flow import api
from flowsight.params import config
from flowsight.serving import bundle, pyfunc_model
from flowsight.serving.answering import answer
from flowsight.serving.bundle import Bundle
from flowsight.serving.memory import Limits
from flowsight.serving.prediction import check_attention, predict_video, predict_videos
from flowsight.serving.result import Prediction
from flowsight.serving.settings import Settings
from flowsight.systems.residual3d import network, spatial_attention
from flowsight.video import pack
from flowsight.video.decode import UnreadableVideo
from tests.conftest import job_of

from .conftest import CLASSES, add_network, lock

ROW = "resnet3d_attention"
FLOW = "resnet3d_flow"


def tree_with(target: Path, tree: Path, change: Callable[[dict], None]) -> Path:
    """The tree with other rows, and a checkpoint of each that has none."""
    root = Path(shutil.copytree(tree, target))
    yaml = YAML()
    values = yaml.load(root / "params.yaml")
    change(values["systems"]["residual3d"]["rows"])
    yaml.dump(values, root / "params.yaml")
    params = config.load(root / "params.yaml")
    for name in params.system("residual3d").rows:
        if not (root / f"checkpoints/sample/{name}-1").exists():
            add_network(root, params, name)
    lock(root)
    return root


@pytest.fixture(scope="session")
def flow_tree(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its only network with attention sees flow, with three views of a clip."""

    def change(rows: dict) -> None:
        row = rows.pop(ROW)
        row["input"] = {**row["input"], "modality": "flow"}
        row["test"] = {"num_views": 3, "num_crops": 1}
        rows[FLOW] = row

    return tree_with(tmp_path_factory.mktemp("flow") / "tree", tree, change)


@pytest.fixture(scope="session")
def plain(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A network without attention."""
    folder = tmp_path_factory.mktemp("plain")
    root = tree_with(folder / "tree", tree, lambda rows: rows.pop(ROW))
    bundle.write_bundle("residual3d", folder / "bundle", root=root)
    return bundle.load_bundle(folder / "bundle", device="cpu")


@pytest.fixture(scope="session")
def over_flow(flow_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("bundle") / "flow"
    bundle.write_bundle("residual3d", out, root=flow_tree)
    return bundle.load_bundle(out, device="cpu")


def stages(tree: Path, video: Path, name: str, work: Path) -> tuple[np.ndarray, np.ndarray]:
    """Logits and maps of a clip by the pipeline's own stages, through packs on disk."""
    params = config.load(tree / "params.yaml")
    row, size, flow = params.row(name), params.frames.size, params.flow
    path, manifest = work / "packs/0/Run/clip.zip", work / "manifest"
    frames_pack = path if row.input.modality == "rgb" else work / "frames.zip"
    frames.frames_of_video(
        video, frames_pack, clip_id="Run/clip", size=size, quality=params.frames.quality
    )
    if row.input.modality == "flow":
        flow_packing.flow_of_video(video, path, size=size, **dataclasses.asdict(flow))
    manifest.mkdir()
    shutil.copy(tree / "data/manifests/sample/classes.csv", manifest)
    count, fps = pack.num_frames(frames_pack), cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FPS)
    text = f"clip_id,label,num_frames,shard,fps\nRun/clip,Run,{count},0,{fps}\n"
    (manifest / "clips.csv").write_text(text)
    (work / "1.csv").write_text("clip_id,subset\nRun/clip,test\n")
    where = {"manifest": manifest, "split": work / "1.csv", "packs": work / "packs"}
    checkpoint = tree / f"checkpoints/sample/{name}-1"
    table = scores.predict(
        model=network,
        row=row,
        params=params,
        checkpoint_dir=checkpoint,
        device="cpu",
        **where,
    )
    read = {"manifest": manifest, "split_file": where["split"], "packs": where["packs"]}
    block = params.system("residual3d")
    spatial_attention.spatial_attention(
        job_of("residual3d", block, name, work / "maps", **read, checkpoint=checkpoint)
    )
    logits = np.array([table.column(f"logit_{c}")[0].as_py() for c in CLASSES])
    return logits, pack.read_maps(work / "maps/Run/clip.zip", range(count))


def check_equal(tree: Path, video: Path, name: str, system: Bundle, work: Path) -> None:
    logits, maps = stages(tree, video, name, work)
    found = predict_video(system, video, attention=True)
    np.testing.assert_allclose(found.logits["network"], logits, rtol=0, atol=1e-5)
    probs = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(found.probs["network"], probs, rtol=0, atol=1e-5)
    assert probs.max() - probs.min() > 0.01  # or anything would be equal
    assert found.label == CLASSES[int(np.argmax(probs))]
    assert found.attention is not None and found.attention["network"].shape == maps.shape
    # a last bit may move a weight over the edge between two levels
    assert np.abs(found.attention["network"].astype(int) - maps).max() <= 1
    without = predict_video(system, video)
    np.testing.assert_allclose(without.logits["network"], logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["walk.avi", "deep/long.mp4", "one.avi"])
def test_equals_the_stages(
    name: str, tree: Path, videos: Path, over_clips: Bundle, tmp_path: Path
) -> None:
    """8, 40 and 1 frames; at 6 a second the first and the last are shorter than the clip of 8."""
    check_equal(tree, videos / name, ROW, over_clips, tmp_path)


@pytest.mark.parametrize("name", ["walk.avi", "deep/long.mp4"])
def test_a_network_over_flow_equals_the_stages(
    name: str, flow_tree: Path, videos: Path, over_flow: Bundle, tmp_path: Path
) -> None:
    check_equal(flow_tree, videos / name, FLOW, over_flow, tmp_path)


def test_frames_alone_need_no_flow(
    videos: Path, over_clips: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object, **options: object) -> None:
        raise AssertionError("flow")

    monkeypatch.setattr(api, "compute", never)
    monkeypatch.setattr(api, "compute_levels", never)
    updates: list[tuple[str, int, int]] = []
    found = predict_video(
        over_clips, videos / "walk.avi", update=lambda *progress: updates.append(progress)
    )
    assert set(found.seconds) == {"decode", "jpeg", "scores", "total"}
    assert updates[-1] == ("frames", 8, 8) and len(updates) == 8
    assert (found.num_frames, found.attention, found.clip) == (8, None, None)


def test_flow_that_no_view_sees_is_not_computed(
    videos: Path, over_flow: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clip of 8 fields at 6 of 10 a second, from the middle of 24: fields 13 to 25."""
    solved: list[int] = []
    encode = pack.encode_jpeg
    monkeypatch.setattr(pack, "encode_jpeg", lambda i, q: (solved.append(i.ndim), encode(i, q))[1])
    few = predict_video(over_flow, videos / "deep/long.mp4", num_views=1)
    assert (solved.count(3), solved.count(2)) == (40, 2 * 8)
    every = predict_video(over_flow, videos / "deep/long.mp4", num_views=1, attention=True)
    np.testing.assert_allclose(few.logits["network"], every.logits["network"], rtol=0, atol=1e-6)


def test_the_bundle_says_whence(tree: Path, clips_folder: Path, over_clips: Bundle) -> None:
    described = json.loads((clips_folder / "model.json").read_text())
    assert (described["system"], described["row"]) == ("residual3d", ROW)
    assert list(described["rows"]) == list(described["files"]) == [ROW]
    assert "fusion" not in described and "streams" not in described
    source = tree / described["files"][ROW]["path"]
    assert source == tree / f"checkpoints/sample/{ROW}-1/model.pt"
    assert (clips_folder / f"{ROW}.pt").read_bytes() == source.read_bytes()
    assert not over_clips.served.network.training


def test_refuses_weights_of_another_row(tree: Path, clips_folder: Path, tmp_path: Path) -> None:
    """The baseline's weights lack the attention."""
    broken = Path(shutil.copytree(clips_folder, tmp_path / "broken"))
    other = tree / "checkpoints/sample/resnet3d-1/model.pt"
    shutil.copy(other, broken / f"{ROW}.pt")
    with pytest.raises(InputError, match="expected the weights that"):
        bundle.load_bundle(broken)
    described = json.loads((broken / "model.json").read_text())
    described["files"][ROW]["sha256"] = bundle.files.sha256(other)
    (broken / "model.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match=f"expected the weights of its row in .*{ROW}.pt, got"):
        bundle.load_bundle(broken)
    described["system"] = "residul3d"
    (broken / "model.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match="did you mean 'residual3d'"):
        bundle.load_bundle(broken)


def test_no_attention_to_show(plain: Bundle, videos: Path, settings: Settings) -> None:
    says = "with spatial attention to show, got row resnet3d, which has none"
    with pytest.raises(InputError, match=says):
        check_attention(plain)
    with pytest.raises(InputError, match=says):
        predict_video(plain, videos / "walk.avi", attention=True)
    refused, good = answer(
        plain, [{"video": "walk.avi", "attention": True}, {"video": "walk.avi"}], settings
    )
    assert says in refused["error"] and refused["label"] is None
    assert good["error"] is None and good["attention"] is None


@pytest.fixture
def settings(videos: Path) -> Settings:
    limits = Limits(max_bytes=10**6, max_sec=3.5)
    return Settings(root=videos, urls="0", limits=limits, max_videos=4, threads=None)


def test_a_servers_answers(over_clips: Bundle, settings: Settings, videos: Path) -> None:
    good, bad, long = answer(
        over_clips,
        [{"video": "walk.avi", "top": 2, "attention": True}, {"video": "text.avi"},
         {"video": "deep/long.mp4"}],
        settings,
    )  # fmt: skip
    signature, _ = pyfunc_model.signature("residual3d")
    for one in (good, bad, long):
        assert set(one) == set(signature.outputs.input_names())
    assert "readable video, got not a video" in bad["error"]
    assert "4.0 s where at most 3.5 s" in long["error"]
    expected = predict_video(over_clips, videos / "walk.avi").probs["network"]
    assert list(good["probabilities"]) == ["network"]
    told = [good["probabilities"]["network"][name] for name in CLASSES]
    np.testing.assert_allclose(told, expected, atol=1e-9)
    assert (good["label"], good["score"]) == (good["classes"][0], max(expected))
    assert len(good["classes"]) == 2 and good["attention"]["frames"] == [1, 3, 5, 7]
    maps = np.array(good["attention"]["network"]["maps"])
    assert maps.ndim == 3 and len(maps) == 4 and maps.min() == 0 and maps.max() == 255
    data = np.frombuffer(base64.b64decode(good["attention"]["network"]["picture"]), np.uint8)
    assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape == (54, 4 * 72, 3)
    json.dumps([good, bad, long], allow_nan=False)


def test_several_videos_and_one_is_none(over_clips: Bundle, videos: Path) -> None:
    names = [videos / name for name in ("walk.avi", "noise.avi", "empty.avi", "in.avi")]
    first, noise, empty, last = predict_videos(over_clips, names)
    assert isinstance(noise, UnreadableVideo) and isinstance(empty, UnreadableVideo)
    assert isinstance(first, Prediction) and isinstance(last, Prediction)
    np.testing.assert_array_equal(first.probs["network"], last.probs["network"])
