"""A video's scores: equal to the stages' own for the same clip, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from flowsight.batches.clips import load_clips
from flowsight.classifiers import scores
from flowsight.datasets.clips import flow as flow_packing
from flowsight.datasets.clips import frames
from flowsight.errors import FlowsightError, InputError
from flowsight.metrics import classification
from flowsight.metrics.fusion import fuse
from flowsight.params import config
from flowsight.serving import memory, prediction
from flowsight.serving.bundle import Bundle
from flowsight.serving.memory import Limits
from flowsight.serving.prediction import predict_video, predict_videos
from flowsight.serving.result import Prediction
from flowsight.systems.two_stream import network, served
from flowsight.systems.two_stream.maps import extraction
from flowsight.video import pack
from flowsight.video.decode import UnreadableVideo

from .conftest import CLASSES


def stages(tree: Path, video: Path, system: Bundle, work: Path) -> dict[str, np.ndarray]:
    """Probabilities of a clip by the pipeline's own stages, through packs on disk."""
    params = config.load(tree / "params.yaml")
    size, flow = params.frames.size, params.flow
    frames_pack, flow_pack = work / "frames/0/Run/clip.zip", work / "flow/0/Run/clip.zip"
    frames.frames_of_video(
        video, frames_pack, clip_id="Run/clip", size=size, quality=params.frames.quality
    )
    flow_packing.flow_of_video(video, flow_pack, size=size, **dataclasses.asdict(flow))
    manifest = work / "manifest"
    manifest.mkdir()
    (manifest / "classes.csv").write_bytes(
        (tree / "data/manifests/sample/classes.csv").read_bytes()
    )
    count = pack.num_frames(frames_pack)
    text = f"clip_id,label,num_frames,shard\nRun/clip,Run,{count},0\n"
    (manifest / "clips.csv").write_text(text)
    (work / "1.csv").write_text("clip_id,subset\nRun/clip,test\n")
    packs = {"spatial": work / "frames", "temporal": work / "flow"}
    for name, stream in system.served.streams.items():
        clips, _ = load_clips(manifest, work / "1.csv", packs[name])
        folder = tree / f"checkpoints/sample/{name}-1"
        phase1 = extraction.load_stream(stream.phase1_row, len(CLASSES), folder)
        unlabelled = [extraction.without_label(clip) for clip in clips]
        extraction.predict_clips(phase1, stream.attention, unlabelled, work / "maps" / name, {})
    probs = {}
    for name, stream in system.served.streams.items():
        table = scores.predict(
            model=network,
            row=stream.row,
            params=params,
            manifest=manifest,
            split=work / "1.csv",
            packs=packs[name],
            checkpoint_dir=tree / f"checkpoints/sample/{name}_attended-1",
            maps=work / "maps" / {"spatial": "temporal", "temporal": "spatial"}[name],
            device="cpu",
        )
        logits = [table.column(f"logit_{c}")[0].as_py() for c in CLASSES]
        probs[name] = classification.softmax(np.array(logits))
    probs["fused"] = fuse(probs["spatial"], probs["temporal"], 0.35)
    return probs


@pytest.mark.parametrize("name", ["walk.avi", "deep/long.mp4"])
def test_equals_the_stages(
    name: str, tree: Path, videos: Path, system: Bundle, tmp_path: Path
) -> None:
    expected = stages(tree, videos / name, system, tmp_path)
    found = predict_video(system, videos / name)
    assert found.probs.keys() == expected.keys()
    for stream, probs in expected.items():
        np.testing.assert_allclose(found.probs[stream], probs, rtol=0, atol=1e-5)
        assert probs.max() - probs.min() > 0.01  # or anything would be equal
    assert found.label == CLASSES[int(np.argmax(expected["fused"]))]


def test_the_maps_count(videos: Path, system: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores move when the other stream's map does: the comparison above compares something."""
    plain = predict_video(system, videos / "walk.avi")
    monkeypatch.setattr(extraction, "quantise", lambda m: np.zeros(m.shape, np.uint8))
    blind = predict_video(system, videos / "walk.avi")
    for stream in ("spatial", "temporal"):
        assert np.abs(plain.logits[stream] - blind.logits[stream]).max() > 1e-4


def test_quality_of_the_packs_counts(videos: Path, system: Bundle) -> None:
    finer = dataclasses.replace(system, frames=dataclasses.replace(system.frames, quality=100))
    coarse, fine = (predict_video(s, videos / "walk.avi") for s in (system, finer))
    assert np.abs(coarse.logits["spatial"] - fine.logits["spatial"]).max() > 1e-4


@pytest.mark.parametrize("name", ["walk.avi", "deep/long.mp4"])
def test_maps_of_all_frames_change_no_score(name: str, videos: Path, system: Bundle) -> None:
    few = predict_video(system, videos / name)
    every = predict_video(system, videos / name, attention=True)
    for stream, logits in few.logits.items():
        np.testing.assert_allclose(every.logits[stream], logits, rtol=0, atol=1e-5)
    assert few.attention is None
    assert every.attention is not None
    for maps in every.attention.values():
        assert maps.dtype == np.uint8
        assert len(maps) == every.num_frames
        assert (maps.reshape(len(maps), -1).max(axis=1) == 255).all()  # none left out


@pytest.mark.parametrize("promised", [None, 0, 7, 4000])
def test_flow_that_no_view_sees_is_not_computed(
    promised: int | None, videos: Path, system: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One stack of each stream; a header that lies changes the work, never the scores."""
    if promised is not None:
        monkeypatch.setattr("flowsight.serving.memory.promised_frames", lambda capture: promised)
    solved: list[int] = []
    encode = pack.encode_jpeg
    monkeypatch.setattr(pack, "encode_jpeg", lambda i, q: (solved.append(i.ndim), encode(i, q))[1])
    few = predict_video(system, videos / "deep/long.mp4", num_views=1)
    assert solved.count(3) == 40
    length = system.served.streams["temporal"].row.input.stack_length
    # both stacks lie in the middle of the clip
    expected = 39 if promised in (0, 7) else len(range(17, 20 + length))
    assert abs(solved.count(2) / 2 - expected) <= 3
    loaded = memory.load(videos / "deep/long.mp4", frames=system.frames, flow=system.flow)
    every = prediction.predict_clip(system, loaded, num_views=1)
    for stream, logits in every.logits.items():
        np.testing.assert_allclose(few.logits[stream], logits, rtol=0, atol=1e-6)


def test_frames_at_once_are_the_attention_stages() -> None:
    assert served.FRAMES_AT_ONCE == extraction._FRAMES_AT_ONCE


def test_what_a_prediction_says(videos: Path, system: Bundle) -> None:
    updates: list[tuple[str, int, int]] = []
    found = predict_video(
        system, videos / "walk.avi", update=lambda *progress: updates.append(progress)
    )
    assert (found.num_frames, found.classes) == (8, CLASSES)
    assert found.duration_sec == pytest.approx(0.8)
    assert all(probs.sum() == pytest.approx(1) for probs in found.probs.values())
    shares = [share for _, share in found.top(3)]
    assert shares == sorted(shares, reverse=True)
    assert set(found.seconds) == {"decode", "jpeg", "flow", "attention", "scores", "total"}
    assert all(sec > 0 for sec in found.seconds.values())
    assert updates[6] == ("flow", 7, 7)
    assert {part for part, _, _ in updates[7:]} == {"rgb attention", "flow attention"}


def test_views_can_be_chosen(videos: Path, system: Bundle) -> None:
    usual = predict_video(system, videos / "walk.avi")
    single = predict_video(system, videos / "walk.avi", num_views=1, num_crops=1)
    assert np.abs(usual.logits["spatial"] - single.logits["spatial"]).max() > 1e-6
    with pytest.raises(InputError, match="num_crops must be 1 or 10"):
        predict_video(system, videos / "walk.avi", num_crops=3)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent.avi", "missing file"),
        ("deep", "not a file"),
        ("text.avi", "text"),
        ("noise.avi", "not a video"),
        ("empty.avi", "empty file"),
        ("one.avi", "fewer than 2 frames"),
    ],
)
def test_what_is_no_video(name: str, reason: str, videos: Path, system: Bundle) -> None:
    with pytest.raises(UnreadableVideo, match=reason):
        predict_video(system, videos / name)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(max_bytes=1000), "MB where at most"),
        (Limits(max_sec=3.5), "4.0 s where at most 3.5 s"),
        (Limits(max_frames=39), "more than 39 frames"),
        (Limits(max_side_px=80), "outside"),
    ],
)
def test_limits(limits: Limits, reason: str, videos: Path, system: Bundle) -> None:
    with pytest.raises(UnreadableVideo, match=reason):
        predict_video(system, videos / "deep/long.mp4", limits=limits)


def test_a_header_cannot_hide_the_length(
    videos: Path, system: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowsight.serving.memory.promised_frames", lambda capture: 0)
    with pytest.raises(UnreadableVideo, match=r"more than 3.5 s of video"):
        predict_video(system, videos / "deep/long.mp4", limits=Limits(max_sec=3.5))


def test_several_videos_and_one_is_broken(videos: Path, system: Bundle) -> None:
    names = ["walk.avi", "text.avi", "deep/long.mp4"]
    found = list(
        predict_videos(system, [videos / n for n in names], attention=[False, False, True])
    )
    assert isinstance(found[0], Prediction) and isinstance(found[2], Prediction)
    assert isinstance(found[1], FlowsightError)
    for name, result in ((names[0], found[0]), (names[2], found[2])):
        alone = predict_video(system, videos / name)
        np.testing.assert_allclose(result.probs["fused"], alone.probs["fused"], atol=1e-5)
    assert found[0].attention is None and found[2].attention is not None
    assert list(predict_videos(system, [])) == []
