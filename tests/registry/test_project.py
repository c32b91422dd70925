"""A small DVC project of the real one's shape: registered, traced, reproduced."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from flowsight import files
from flowsight.classifiers import judge
from flowsight.errors import FlowsightError, InputError
from flowsight.params.promotion import PromotionParams
from flowsight.registry import (
    describing,
    evidence,
    gate,
    lineage,
    lineage_text,
    locks,
    registering,
    reproducing,
    store,
)
from flowsight.registry.candidate import Served

from .toy_project import BIN, NAMES, ROOT, call, make

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("project") / "repo")


@pytest.fixture
def registry(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server_uri: str
) -> Iterator[store.Registry]:
    """The served model is a tiny one, for the toy's checkpoints are no networks."""
    from .conftest import MODEL

    def served(system: str, root: Path, folder: Path, commit: str) -> Served:
        (folder / "tiny.py").write_text(MODEL)
        (folder / "weights").write_text("{}")
        return Served(
            code=folder / "tiny.py",
            artifacts={"weights": folder / "weights", "bundle": folder / "bundle"},
            requirements=["mlflow==3.17.2"],
        )

    monkeypatch.setattr(registering, "_served", served)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server_uri)
    monkeypatch.setenv("FLOWSIGHT_REPO", str(project))
    monkeypatch.setenv("FLOWSIGHT_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    yield store.connect()


def test_from_the_working_tree_and_from_a_revision_it_is_one_version(
    registry: store.Registry, project: Path, tmp_path: Path
) -> None:
    made = registering.register("two_stream", root=project)
    commit = call("git", "rev-parse", "HEAD", at=project)
    again = registering.register_revision("two_stream", "main")
    assert (again.version, again.run_id, again.is_new) == (made.version, made.run_id, False)
    version = registry.version("two_stream", "challenger")
    assert version.tags["git_commit"] == commit
    assert version.tags["data_gate"] == "passed"
    assert version.tags["quarantine_share"] == "0.200000"
    assert version.tags["paper_comparable"] == "0 of 1 rows; another data set"
    assert (version.tags["top1"], version.tags["top1.split_1"]) == ("0.500000", "0.500000")
    run = registry.run(version)
    assert run.data.metrics["attention/fused/top1"] == 0.5
    assert run.data.params["systems.two_stream.rows.spatial.train.epochs"]
    for picture, content in (("confusion/attention", "a picture"), ("overlays/Down__c", "another")):
        kept = registry.download(made.run_id, f"evaluation/{picture}.png", tmp_path)
        assert kept.read_text() == content
    kept = {one.path for one in registry.client.list_artifacts(made.run_id, "evaluation")}
    assert "evaluation/per_split.csv" in kept and "evaluation/predictions.parquet" not in kept


def test_networks_over_clips(registry: store.Registry, project: Path, tmp_path: Path) -> None:
    """The other system's life, beside the first one's: registered, traced, reproduced."""
    made = registering.register("residual3d", root=project)
    version = registry.version("residual3d", "challenger")
    assert version.tags["row"] == "resnet3d_attention" and "fusion" not in version.tags
    assert (version.tags["backbone"], version.tags["modality"]) == ("resnet3d_10", "rgb")
    assert (version.tags["top1"], version.tags["mean_class.split_1"]) == ("0.500000", "0.500000")
    held = [tag for tag in version.tags if tag.startswith("dvc.checkpoint.")]
    assert held == ["dvc.checkpoint.resnet3d_attention"]
    metrics = registry.run(version).data.metrics
    assert metrics["resnet3d_attention/top1"] == 0.5
    assert metrics["resnet3d_attention/clip_top1/split_1"] == 0.25
    assert metrics["resnet3d/log_loss/split_1"] == 0.1
    kept = evidence.load(registry, version)
    assert kept.scores["item_id"].tolist() == ["Down/c", "Up/d"]
    assert set(kept.learnt["item_id"]) == {"Up/a", "Up/b"}
    picture = registry.download(made.run_id, "evaluation/confusion/attention.png", tmp_path)
    assert picture.read_text() == "a picture"
    found = lineage.trace(registry, "models:/residual3d@challenger", project)
    assert found["consistent"] is True and set(found["checkpoints"]) == {"resnet3d_attention"}
    names = [one["stage"] for one in found["stages"]]
    assert "train@resnet3d_attention" in names and "evaluate@residual3d" in names
    assert "evaluate@two_stream" not in names
    trained = "checkpoints/sample/resnet3d_attention-1"
    models = lineage.trace(registry, trained, project)["models"]
    assert {(m["model"], m["version"]) for m in models} == {("residual3d", made.version)}
    report = reproducing.reproduce(registry, "models:/residual3d@challenger", project)
    assert not report.different and report.ran == ()
    assert "weights resnet3d_attention" in report.same


def test_networks_over_images(registry: store.Registry, project: Path) -> None:
    """Registered from the tree and from a revision, traced both ways, reproduced."""
    made = registering.register("saliency", root=project)
    again = registering.register_revision("saliency", "main")
    assert (again.version, again.is_new) == (made.version, False)
    version = registry.version("saliency", "challenger")
    tags = version.tags
    assert (tags["row"], tags["plan"], tags["subject"]) == ("fcn_f", "fc6=0.5", "images")
    assert (tags["f_beta"], tags["s_measure.split_1"]) == ("0.700000", "0.600000")
    assert (tags["data_gate"], tags["num_images"]) == ("passed", "4")
    assert tags["quarantine_share"] == "0.000000" and tags["dataset"] == "sample_images"
    assert registry.run(version).data.metrics["fcn/f_beta/split_1"] == 0.9
    kept = evidence.load(registry, version)
    assert kept.scores.set_index("item_id")["score"].to_dict() == {"i2": 0.6, "i3": 0.8}
    assert set(kept.learnt["item_id"]) == {"i0", "i1"}
    image = project / "data/raw/sample_images/Imgs/i2.jpg"
    assert kept.tested.set_index("item_id")["sha256"]["i2"] == files.sha256(image)
    found = lineage.trace(registry, "models:/saliency@challenger", project)
    assert found["consistent"] is True and set(found["checkpoints"]) == {"fcn_f"}
    assert list(found["numbers"]) == ["f_beta", "max_f", "mae", "s_measure"]
    assert "evaluate@saliency" in [one["stage"] for one in found["stages"]]
    for item, subset, learnt in (("i0", "train", True), ("i2", "test", False)):
        models = lineage.trace(registry, item, project)["models"]
        own = [(m["subset"], m["learnt"]) for m in models if m["model"] == "saliency"]
        assert own == [(subset, learnt)]
    report = reproducing.reproduce(registry, "models:/saliency@challenger", project)
    assert not report.different and "weights fcn_f" in report.same


def test_networks_over_scenes(registry: store.Registry, project: Path) -> None:
    """The items are frames: of a video one half trains and the other tests."""
    made = registering.register("background", root=project)
    again = registering.register_revision("background", "main")
    assert (again.version, again.is_new) == (made.version, False)
    version = registry.version("background", "challenger")
    tags = version.tags
    assert (tags["row"], tags["split"], tags["f_measure"]) == (
        "recurrent_median",
        "both",
        "0.900000",
    )
    assert (tags["stage"], tags["num_frames"]) == ("evaluate@background", "8")
    kept = evidence.load(registry, version)
    assert len(kept.tested) == 4 and len(kept.learnt) == 4
    frame = kept.scores.set_index("item_id").loc["shadow/room/000004"]
    assert (frame["group"], frame["weight"], frame["score"]) == ("shadow/room", 21, 20 / 21)
    verdict = gate.judge(
        kept, None, PromotionParams(), latency_sec=0.1, seed=1,
        repository=locks.repository_id(project),
    )  # fmt: skip
    assert verdict.accepted, verdict.reasons  # though its frames are all the same to the bit
    expected = (2 * 19 / (2 * 19 + 2)) * 1.0
    assert verdict.numbers["f_measure"] == pytest.approx(expected)
    for item, subset, learnt in (
        ("baseline/street", "train, test", True),
        ("baseline/street/000002", "train", True),
        ("baseline/street/000003", "test", False),
    ):
        models = lineage.trace(registry, item, project)["models"]
        own = [(m["subset"], m["learnt"]) for m in models if m["model"] == "background"]
        assert own == [(subset, learnt)]
    report = reproducing.reproduce(registry, f"models:/background/{made.version}", project)
    assert not report.different and "weights recurrent_median" in report.same


def test_lineage_both_ways(registry: store.Registry, project: Path) -> None:
    made = registering.register("two_stream", root=project)
    commit = call("git", "rev-parse", "HEAD", at=project)
    ours = {"model": "two_stream", "version": made.version}
    of_model = lineage.trace(registry, "models:/two_stream@challenger", project)
    assert of_model["commit"] == commit and of_model["repository"] == "here"
    assert of_model["consistent"] is True and set(of_model["checkpoints"]) == set(NAMES)
    names = [one["stage"] for one in of_model["stages"]]
    assert names[0] == "raw" and "train@spatial_attended" in names and len(names) == 9
    text = lineage_text.as_text(of_model)
    assert "evaluate@two_stream" in text and of_model["data"]["splits"] in text
    by_run = lineage.trace(registry, made.run_id, project)
    assert by_run["kind"] == "run" and by_run["stages"] == of_model["stages"]
    for reference in (
        "checkpoints/sample/spatial-1/model.pt",
        commit[:9],
        of_model["data"]["data"],
        "Up/a",
    ):
        found = lineage.trace(registry, reference, project)
        assert any(ours.items() <= one.items() for one in found["models"]), reference
        assert f"version {made.version}" in lineage_text.as_text(found)
    # the same checkpoints, another commit
    call("git", "commit", "-q", "--allow-empty", "-m", "later", at=project)
    later = lineage.trace(registry, "main", project)["models"]
    assert "same checkpoints" in later[0]["how"]


@pytest.mark.parametrize(
    ("clip", "subset", "learnt"),
    [("Up/a", "train", True), ("Up/b", "val", True), ("Down/c", "test", False)],
)
def test_which_models_saw_a_clip(
    registry: store.Registry, project: Path, clip: str, subset: str, learnt: bool
) -> None:
    registering.register("two_stream", root=project)
    found = [m for m in lineage.of_item(registry, clip) if m["model"] == "two_stream"]
    assert [(m["subset"], m["learnt"]) for m in found] == [(subset, learnt)]


def test_unknown_references(registry: store.Registry, project: Path) -> None:
    registering.register("two_stream", root=project)
    for reference, says in {
        "models:/two_stream": "expected models:/NAME@ALIAS",
        "models:/two_stream@best": "found no 'best'; aliases: challenger",
        "models:/two_stream/99": "expected version 99 of two_stream, found none",
        "models:/two_steam/1": "did you mean 'two_stream'?",
        "checkpoints/sample/x-1": "found no 'checkpoints/sample/x-1'",
        "abcdef1234": "expected the commit abcdef1234",
        "0" * 32: "expected a run or a hash",
    }.items():
        with pytest.raises(InputError) as error:
            lineage.trace(registry, reference, project)
        assert says in str(error.value) and "\n" not in str(error.value)
    # other tests left versions whose clips nobody knows any more
    nobody = [m for m in lineage.of_item(registry, "Up/nobody") if m["subset"] != "unknown"]
    assert nobody and all(m["subset"] is None for m in nobody)


def test_reproduced_from_the_cache_and_without_it(
    registry: store.Registry, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = registering.register("two_stream", root=project)
    reference = f"models:/two_stream/{made.version}"
    log = tmp_path / "log"
    report = reproducing.reproduce(registry, reference, project)
    assert not report.different and report.ran == () and not log.exists()
    assert "bit-identical" in report.lines()[1]
    report = reproducing.reproduce(registry, reference, project, use_cache=False)
    assert not report.different and len(report.ran) == report.stages == 9
    assert len(log.read_text().splitlines()) == 9
    reproducing.check_reproduced(report)
    monkeypatch.setenv("TOY_NOISE", "x")
    report = reproducing.reproduce(registry, reference, project, use_cache=False)
    assert any("weights spatial_attended: was" in line for line in report.different)
    with pytest.raises(FlowsightError, match="did not come out the same"):
        reproducing.check_reproduced(report)
    assert call("git", "worktree", "list", at=project).count("\n") == 0
    assert call("git", "status", "--porcelain", at=project) == ""


def test_a_state_that_nobody_could_find_again_is_refused(
    registry: store.Registry, project: Path
) -> None:
    def refused(says: str, system: str = "two_stream") -> None:
        before = len(registry.every_version())
        with pytest.raises(InputError) as error:
            registering.register(system, root=project)
        assert says in str(error.value) and "\n" not in str(error.value)
        assert len(registry.every_version()) == before

    refused("did you mean 'two_stream'?", "two_steam")
    weights = project / "checkpoints/sample/spatial-1/model.pt"
    content = weights.read_bytes()
    weights.unlink()  # may be a link into the cache
    weights.write_bytes(b"other")
    refused("expected checkpoints/sample/spatial-1 as dvc.lock knows it")
    weights.write_bytes(content)
    params = project / "params.yaml"
    text = params.read_text()
    params.write_text(text.replace("seed: 1", "seed: 2", 1))
    refused("found changes of params.yaml; commit them")
    call("git", "commit", "-qam", "other seed", at=project)
    refused("train@spatial")  # would run again
    call("git", "reset", "-q", "--hard", "HEAD~1", at=project)


def test_metrics_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"a/top1": float("nan"), "b": 1}))
    empty = pd.DataFrame(columns=["fusion", "stream", "split_id"])
    with pytest.raises(InputError, match="NaN or infinity for a/top1"):
        describing._metrics(path, empty, ["fusion", "stream"], judge.KIND)


def test_requirements_are_exact_and_cover_what_serving_imports() -> None:
    wanted = describing.requirements(ROOT / "requirements.lock")
    assert all("==" in one for one in wanted)
    program = (
        "import sys, flowsight.serving.answering, flowsight.serving.bundle, "
        "flowsight.serving.prediction, flowsight.classifiers.networks\n"
        "print(*{n.partition('.')[0] for n, m in list(sys.modules.items()) "
        "if getattr(m, '__file__', None)})"
    )
    loaded = set(call(sys.executable, "-c", program, at=ROOT).split())
    modules = {"cv2": "opencv-contrib-python-headless", "ruamel": "ruamel-yaml"}
    ours = {"cv2", "numpy", "pandas", "torch", "torchvision", "ruamel", "psutil", "scipy", "rich"}
    ours |= {"pyarrow", "lightning", "torchmetrics", "typer", "dvc", "matplotlib", "mlflow"}
    needed = {modules.get(name, name) for name in ours if name in loaded}
    assert needed <= {one.partition("==")[0] for one in wanted}
