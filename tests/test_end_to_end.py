"""The whole pipeline in a scratch clone, on real components: it runs, it repeats, it reacts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import psutil
import pytest

from flowsight import contract
from flowsight.datasets.images.pairs import load_pairs, read_mask
from flowsight.datasets.scenes.videos import open_video
from flowsight.metrics import saliency as metrics
from flowsight.pipeline import dvc_yaml
from flowsight.serving import bundle
from flowsight.serving.prediction import predict_video, predict_videos
from flowsight.serving.result import Prediction
from flowsight.systems.background import counts as scene_counts

ROOT = Path(__file__).resolve().parents[1]
MOST_CLIPS = 12
ALL = "systems=[two_stream,residual3d,background,saliency]"
# 24 clips; the three broken files are a larger share of them
FEW = [
    "sample.num_groups=3",
    "sample.num_test_groups=1",
    "sample.clips_per_group=1",
    "dataset.max_quarantined=0.2",
]

pytestmark = [pytest.mark.slow, pytest.mark.pipeline]


def clone(target: Path) -> Path:
    """What git would take of this tree, in a repository of its own."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in names.splitlines():
        if (ROOT / name).is_file() and name != "dvc.lock" and not name.startswith("tests/"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    subprocess.run(["git", "init", "-q", target], check=True)
    return target


def flowsight(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return command("flowsight", root, *arguments)


def command(name: str, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One of the environment's programs, run in a folder."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FLOWSIGHT_TRACKING": "off",
    }
    return subprocess.run(
        [Path(sys.executable).parent / name, *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def ran(done: subprocess.CompletedProcess[str], root: Path) -> set[str]:
    """Names of the stages whose command was executed."""
    ended = re.findall(r"^(\S+): \d+ s \(\d+ of", done.stderr, re.MULTILINE)
    logs = {name: (root / f"build/logs/{name}.log").read_text() for name in ended}
    return {name for name, log in logs.items() if f"Running stage '{name}'" in log}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A clone in which the smoke recipe ran on a small sample, and the stages that ran."""
    root = clone(tmp_path_factory.mktemp("clone"))
    composed = flowsight(root, "compose", "recipe=smoke", ALL, *FEW)
    assert composed.returncode == 0, composed.stderr
    done = flowsight(root, "repro", "--jobs", "2")  # as `make repro`, with warm processes
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return root, ran(done, root)


def test_every_stage_runs_and_leaves_its_outputs(finished: tuple[Path, set[str]]) -> None:
    root, names = finished
    stages = dvc_yaml.load(root)
    assert names == set(stages)
    for stage in stages.values():
        for out in stage.outs:
            assert (root / out).exists(), f"{stage.name} left no {out}"


def test_broken_clips_are_quarantined_and_the_rest_is_predicted(
    finished: tuple[Path, set[str]],
) -> None:
    root, _ = finished
    status = pd.read_csv(root / "data/validation/sample/clips/status.csv", keep_default_na=False)
    assert status.clip_id.is_unique
    assert set(status.status) == {"ok", "quarantined"}
    assert (status[status.status == "quarantined"].reason != "").all()
    split = pd.read_csv(root / "data/splits/sample/1.csv")
    assert set(split.clip_id) == set(status[status.status == "ok"].clip_id)
    wanted = set(split[split.subset != "train"].clip_id)
    found = list((root / "predictions/two_stream/sample").glob("*/predictions.parquet"))
    assert len(found) == 4
    for path in found:
        assert set(pd.read_parquet(path).clip_id) == wanted


def test_metrics_are_where_dvc_shows_them(finished: tuple[Path, set[str]]) -> None:
    root, _ = finished
    shown = subprocess.run(
        [Path(sys.executable).parent / "dvc", "metrics", "show", "--json"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = {path: file["data"] for path, file in json.loads(shown)[""]["data"].items()}
    for system, name in (("two_stream", "attention/fused"), ("residual3d", "resnet3d_attention")):
        path = f"metrics/{system}.json"
        assert found[path] == json.loads((root / f"results/{system}/metrics.json").read_text())
        assert 0 <= found[path][f"{name}/top1"] <= 1


def test_a_matrix_is_queued_and_runs(finished: tuple[Path, set[str]]) -> None:
    """`dvc exp run --queue` over studies and seeds; of a second matrix also the runs."""
    root, _ = finished
    for line in ("config user.name matrix", "config user.email m@localhost", "add -A"):
        subprocess.run(["git", *line.split()], cwd=root, check=True)
    subprocess.run(["git", "commit", "-qm", "smoke"], cwd=root, check=True)
    try:
        others = [f"~systems/{name}" for name in contract.names() if name != "two_stream"]
        common = set_by("recipe=smoke", *others, *FEW)
        queue(root, *common, *set_by("study=none,controls", "seed=1,2"))
        queued = experiments(root, "params")
        found = sorted(
            ("spatial_shuffled" in one["systems"]["two_stream"]["rows"], one["seed"])
            for one in queued
        )
        assert found == [(False, 1), (False, 2), (True, 1), (True, 2)]
        command("dvc", root, "queue", "remove", "--all")
        queue(root, *common, *set_by("systems.two_stream.evaluate.bootstrap_samples=0,50"))
        done = command("dvc", root, "exp", "run", "--run-all", "--jobs", "2")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        metrics = [one["metrics/two_stream.json"] for one in experiments(root, "metrics")]
        assert sorted("attention/fused/top1_low" in one for one in metrics) == [False, True]
        assert len({one["attention/fused/top1"] for one in metrics}) == 1
    finally:
        stop_queue(root)


def set_by(*overrides: str) -> list[str]:
    return [part for override in overrides for part in ("-S", override)]


def queue(root: Path, *arguments: str) -> None:
    done = command("dvc", root, "exp", "run", "--queue", *arguments)
    assert done.returncode == 0, done.stderr


def experiments(root: Path, what: str) -> list[dict[str, Any]]:
    """Parameters or metrics of the experiments there are, queued or done."""
    shown = command("dvc", root, "exp", "show", "--json")
    assert shown.returncode == 0, shown.stderr
    _, commit = json.loads(shown.stdout)  # the workspace, and the commit with its experiments
    each = [one["revs"][0]["data"][what] for one in commit["experiments"] or []]
    # of a system that took no part there is an error instead
    data = [{path: f["data"] for path, f in one.items() if "data" in f} for one in each]
    return [one["params.yaml"] for one in data] if what == "params" else data


def stop_queue(root: Path) -> None:
    """End the workers, which otherwise wait some seconds for more."""
    command("dvc", root, "queue", "stop", "--kill")
    for process in psutil.process_iter(["cwd"]):
        if process.info["cwd"] and Path(process.info["cwd"]).is_relative_to(root):
            process.kill()


@pytest.mark.parametrize(
    "system", [name for name in contract.names() if contract.find(name).SUBJECT == "clips"]
)
def test_a_prediction_is_what_evaluation_said(
    finished: tuple[Path, set[str]], system: str, tmp_path: Path
) -> None:
    """Of test and validation clips, from their files, with the networks as they would be served."""
    root, _ = finished
    described = bundle.write_bundle(system, tmp_path / "bundle", root=root)
    served = bundle.load_bundle(tmp_path / "bundle", device="cpu")
    table = pd.read_parquet(root / f"results/{system}/predictions.parquet")
    for column, value in contract.find(system).selection(described).items():
        table = table[table[column] == value]
    table = table[table["split_id"].astype(str) == described["split"]].set_index("clip_id")
    paths = pd.read_csv(root / "data/manifests/sample/clips.csv").set_index("clip_id").path
    chosen = table.index[:: max(1, len(table) // MOST_CLIPS)]
    videos = [root / "data/raw/sample" / paths[clip_id] for clip_id in chosen]
    columns = [f"prob_{name}" for name in served.classes]
    assert len(chosen) > 4
    for clip_id, found in zip(chosen, predict_videos(served, videos), strict=True):
        assert isinstance(found, Prediction), found
        expected = table.loc[clip_id, columns].to_numpy(np.float64)
        np.testing.assert_allclose(found.probs[found.main], expected, rtol=0, atol=1e-5)
        assert found.label == table.loc[clip_id, "predicted"]
        for name, logits in found.logits.items():
            row = described["streams"][name] if "streams" in described else described["row"]
            folder = root / f"predictions/{system}/sample/{row}-{described['split']}"
            own = pd.read_parquet(folder / "predictions.parquet").set_index("clip_id").loc[clip_id]
            expected = own[[f"logit_{c}" for c in served.classes]].to_numpy(np.float64)
            # frames that share a batch move last bits, and those a level of an 8-bit map: 2e-5 seen
            np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def test_an_images_mask_is_what_evaluation_counted(
    finished: tuple[Path, set[str]], tmp_path: Path
) -> None:
    root, _ = finished
    described = bundle.write_bundle("saliency", tmp_path / "bundle", root=root)
    served = bundle.load_bundle(tmp_path / "bundle", device="cpu")
    table = pd.read_parquet(root / "results/saliency/predictions.parquet")
    table = table[table["row"] == described["row"]].set_index("item_id")
    raw, split = root / "data/raw/sample_images", described["split"]
    pairs = load_pairs(raw, root / "data/items/saliency/sample_images", split)
    tested = [pair for pair in pairs if pair.subset == "test"][:5]
    assert len(tested) == 5
    for pair in tested:
        mask = predict_video(served, pair.image).mask
        counts = metrics.confusion(mask, read_mask(pair.mask))
        assert counts == tuple(table.loc[pair.item_id, ["tp", "fp", "fn", "tn"]])


def test_a_scenes_masks_are_the_stages(finished: tuple[Path, set[str]], tmp_path: Path) -> None:
    root, _ = finished
    described = bundle.write_bundle("background", tmp_path / "bundle", root=root)
    served = bundle.load_bundle(tmp_path / "bundle", device="cpu")
    name, key = "baseline/street", f"{described['row']}-{described['split']}"
    scene = open_video(root / "data/raw/sample_scenes", name)
    found = predict_video(served, root / "data/raw/sample_scenes" / name, attention=True)
    with zipfile.ZipFile(found.save_masks(tmp_path, "masks")) as archive:
        masks = [archive.read(one) for one in sorted(archive.namelist()) if one.endswith(".png")]
    assert len(masks) == len(scene)
    predictions = root / f"predictions/background/sample_scenes/{key}"
    for index in scene.temporal_roi:
        mask = cv2.imdecode(np.frombuffer(masks[index], np.uint8), cv2.IMREAD_GRAYSCALE) > 0
        np.testing.assert_array_equal(mask, scene_counts.read_mask(predictions, name, index))


def test_nothing_changed_runs_nothing(finished: tuple[Path, set[str]]) -> None:
    root, _ = finished
    lock = (root / "dvc.lock").read_bytes()
    for jobs in ("1", "2"):
        done = flowsight(root, "repro", "--jobs", jobs)
        assert done.returncode == 0, done.stderr
        assert "Running stage" not in done.stdout
        assert ran(done, root) == set()
    assert (root / "dvc.lock").read_bytes() == lock


def test_an_edit_runs_what_it_touches(finished: tuple[Path, set[str]]) -> None:
    """Words run nothing; a system's report runs that part, and the page if the part changed."""
    root, _ = finished
    path = root / "src/flowsight/systems/saliency/report.py"
    source = path.read_text()
    try:
        for added, wanted in (
            ("\n# a remark\n", {"code"}),
            ("\nREMARK = 1\n", {"code", "report@saliency"}),
        ):
            path.write_text(source + added)
            done = flowsight(root, "repro", "--jobs", "2")
            assert done.returncode == 0, done.stderr
            assert ran(done, root) == wanted
    finally:
        path.write_text(source)
        assert flowsight(root, "repro", "--jobs", "2").returncode == 0


@pytest.mark.parametrize(
    "stage",
    [
        "frames@0",
        "flow@0",
        "train@temporal-1",
        "explain@temporal-1",
        "refine@spatial_attended-1",
        "predict@spatial_attended-1",
        "evaluate@two_stream",
        "train@resnet3d_attention-1",
        "spatial_attention@resnet3d_attention-1",
        "evaluate@residual3d",
        "items@saliency",
        "refine@fcn_f-1",
        "predict@fcn_f-1",
        "train@recurrent-both",
        "report@two_stream",
        "report@saliency",
        "page",
    ],
)
def test_a_stage_run_again_gives_the_same_bytes(
    finished: tuple[Path, set[str]], stage: str
) -> None:
    """In a process of its own, where the first run forked one that had imported before."""
    root, _ = finished
    lock = (root / "dvc.lock").read_text()
    again = ["dvc", "repro", "--force", "--no-run-cache", "--single-item", stage]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "FLOWSIGHT_TRACKING": "off"}
    subprocess.run(["env", *again], cwd=root, env=environment, check=True, capture_output=True)
    assert (root / "dvc.lock").read_text() == lock


def test_wrong_parameters_leave_the_results(finished: tuple[Path, set[str]]) -> None:
    root, _ = finished
    text = (root / "params.yaml").read_text()
    page = (root / "results/report/index.html").read_bytes()
    try:
        (root / "params.yaml").write_text(text.replace("bound_px: 20.0", "bound_px: -1"))
        done = flowsight(root, "repro")
    finally:
        (root / "params.yaml").write_text(text)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: `params.flow`: bound_px must be")
    assert (root / "results/report/index.html").read_bytes() == page


def test_a_new_clip_touches_its_shard_only(finished: tuple[Path, set[str]], tmp_path: Path) -> None:
    """A folder of clips as data set: one more clip runs one shard's frames and flow."""
    source = finished[0] / "data/raw/sample/videos"
    root = clone(tmp_path)
    for label in ("Walk", "Kick", "Push"):
        for path in sorted((source / label).glob("*_g0[123]_c01.avi")):
            target = root / "data/raw/mine" / label / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    own = ["dataset.name=mine", "dataset.adapter=folder", "dataset.max_quarantined=0.5"]
    assert flowsight(root, "compose", "recipe=smoke", *own).returncode == 0
    done = flowsight(root, "repro", "--jobs", "2", "validate@splits")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert {f"frames@{k}" for k in range(4)} < ran(done, root)
    shutil.copy(source / "Run/v_Run_g01_c01.avi", root / "data/raw/mine/Walk/one_more.avi")
    again = ran(flowsight(root, "repro", "--jobs", "2", "validate@splits"), root)
    touched = {name for name in again if name.startswith(("frames@", "flow@"))}
    assert len(touched) == 2
    assert {name.split("@")[1] for name in touched} == {
        str(
            pd.read_csv(root / "data/manifests/mine/clips.csv")
            .set_index("clip_id")
            .shard["Walk/one_more"]
        )
    }


def test_real_clips_go_through_the_data_stages(tmp_path: Path, shared_data: Path) -> None:
    """Two classes of UCF-101 with its official lists; most listed clips are absent."""
    root, source = clone(tmp_path / "clone"), tmp_path / "ucf101"
    shutil.copytree(shared_data / "ucf101/ucfTrainTestlist", source / "ucfTrainTestlist")
    known = pd.read_csv(shared_data / "clips.csv")
    known = known[(known.dataset == "ucf101") & known.label.isin(["Biking", "Surfing"])]
    few = known.sort_values("frames").groupby(["label", "split1"]).head(1)
    assert set(few.split1) == {"train", "test"}
    for path in few.path:
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shared_data / path, target)
    assert flowsight(root, "import", "ucf101", str(source)).returncode == 0
    subset = ["dataset=ucf101", "recipe=smoke", "dataset.max_absent=1.0"]
    assert flowsight(root, "compose", *subset).returncode == 0
    done = flowsight(root, "repro", "validate@splits")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    clips = pd.read_csv(root / "data/manifests/ucf101/clips.csv").set_index("clip_id")
    stems = {
        Path(path).stem: int(frames) for path, frames in zip(few.path, few.frames, strict=True)
    }
    assert {Path(i).name: int(n) for i, n in clips.num_frames.items()} == stems
    split = pd.read_csv(root / "data/splits/ucf101/1.csv")
    assert sorted(split.subset) == ["test", "test", "train", "train"]
