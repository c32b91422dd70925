"""A small DVC project of the real one's shape: registered, traced, reproduced."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from flowsight.errors import FlowsightError, InputError
from flowsight.registry import (
    describing,
    evidence,
    lineage,
    registering,
    reproducing,
    store,
    telling,
)
from flowsight.registry.candidate import Served

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

NAMES = (
    *("spatial", "temporal", "attention-spatial", "attention-temporal"),
    *("spatial_attended", "temporal_attended"),
)
CLIPS = ("resnet3d", "resnet3d_attention")
SYSTEM_OF = dict.fromkeys(NAMES, "two_stream") | dict.fromkeys(CLIPS, "residual3d")
PIPELINE = f"""
stages:
  raw:
    cmd: python make.py raw
    deps: [make.py]
    params: [sample.seed]
    outs: [data/raw/sample]
  data:
    cmd: python make.py data
    deps: [data/raw/sample]
    outs:
      - data/manifests/sample
      - data/splits/sample
      - data/validation/sample/manifest
      - data/validation/sample/clips
      - data/validation/sample/splits
  train:
    foreach: {json.dumps(SYSTEM_OF)}
    do:
      cmd: python make.py train ${{key}} ${{item}}
      deps: [data/splits/sample/1.csv]
      params: [seed]
      outs: ["checkpoints/sample/${{key}}-1", "predictions/${{item}}/sample/${{key}}-1"]
  evaluate:
    foreach: [two_stream, residual3d]
    do:
      cmd: python make.py evaluate ${{item}}
      deps: ["predictions/${{item}}/sample", data/splits/sample]
      outs: ["results/${{item}}"]
"""
MAKE = """
import json, os, sys
from pathlib import Path

def write(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)

subsets = {"Up/a": "train", "Up/b": "val", "Down/c": "test", "Up/d": "test"}
what = sys.argv[1]
with open(os.environ.get("TOY_LOG", os.devnull), "a") as log:
    print(*sys.argv[1:], file=log)
if what == "raw":
    for clip in subsets:
        write(f"data/raw/sample/videos/{clip}.avi", clip)
elif what == "data":
    base = "data/manifests/sample/"
    rows = [f"{c},{c.split('/')[0]},videos/{c}.avi,hash of {c}" for c in subsets]
    write(base + "clips.csv", "\\n".join(["clip_id,label,path,sha256", *rows]))
    write(base + "classes.csv", "index,label\\n0,Down\\n1,Up\\n")
    rows = [f"{c},{s}" for c, s in subsets.items()]
    write("data/splits/sample/1.csv", "\\n".join(["clip_id,subset", *rows]))
    for gate in ("manifest", "clips", "splits"):
        write(f"data/validation/sample/{gate}/passed.json", "{}")
    write("data/validation/sample/clips/status.csv",
          "clip_id,status\\nUp/a,ok\\nUp/b,ok\\nDown/c,ok\\nUp/d,ok\\nUp/e,quarantined\\n")
elif what == "train":
    seed = Path("params.yaml").read_text().partition("\\n")[0]
    weights = sys.argv[2] + seed + os.environ.get("TOY_NOISE", "")
    write(f"checkpoints/sample/{sys.argv[2]}-1/model.pt", weights)
    write(f"predictions/{sys.argv[3]}/sample/{sys.argv[2]}-1", weights)
else:
    import pandas as pd
    base, own = f"results/{sys.argv[2]}/", {"row": "resnet3d_attention"}
    per_split = ("row,split_id,num_clips,top1,clip_top1,top5,mean_class,log_loss\\n"
                 "resnet3d,1,2,1,1,1,1,0.1\\nresnet3d_attention,1,2,0.5,0.25,1,0.5,0.7\\n")
    if sys.argv[2] == "two_stream":
        own = {"fusion": "attention", "stream": "fused"}
        per_split = ("fusion,split_id,stream,top1,top5,mean_class,log_loss,weight,weight_source\\n"
                     "attention,1,spatial,0.5,1,0.5,1,0.65,validation\\n"
                     "attention,1,fused,0.5,1,0.5,0.7,1,validation\\n")
    name = "/".join(own.values())
    write(base + "metrics.json", json.dumps({f"{name}/top1": 0.5, "num_test_clips": 2}))
    write(base + "per_split.csv", per_split)
    write(base + "paper_table.csv",
          "ours,comparable,why\\n50.0,False,another data set\\n,False,x\\n")
    write(base + "confusion/attention.png", "a picture")
    write(base + "overlays/Down__c.png", "another")
    pd.DataFrame({**own, "split_id": "1",
                  "clip_id": ["Down/c", "Up/d", "Up/b"], "subset": ["test", "test", "val"],
                  "label": ["Down", "Up", "Up"], "predicted": ["Down", "Down", "Up"],
                  "prob_Down": [0.9, 0.8, 0.1], "prob_Up": [0.1, 0.2, 0.9]},
                 ).to_parquet(base + "predictions.parquet", index=False)
"""


def call(*command: str | Path, at: Path) -> str:
    env = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [str(part) for part in command], cwd=at, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, (command, done.stdout[-1500:], done.stderr[-1500:])
    return done.stdout.strip()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project") / "repo"
    root.mkdir()
    (root / "dvc.yaml").write_text(PIPELINE)
    (root / "make.py").write_text(MAKE)
    shutil.copy(ROOT / "params.yaml", root)
    # as here: DVC would put a .gitignore into the folder, which a checkout then makes
    (root / ".gitignore").write_text("/predictions/\n")
    call("git", "init", "-q", "-b", "main", at=root)
    call("git", "config", "user.name", "toy", at=root)
    call("git", "config", "user.email", "toy@localhost", at=root)
    call("dvc", "init", "-q", at=root)
    call("dvc", "remote", "add", "-q", "-d", "store", root.parent / "remote", at=root)
    call("dvc", "repro", "-q", at=root)
    call("dvc", "push", "-q", at=root)
    call("git", "add", "-A", at=root)
    call("git", "commit", "-qm", "all", at=root)
    return root


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
    assert run.data.params["rows.spatial.train.epochs"]
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
    assert kept.scores["clip_id"].tolist() == ["Down/c", "Up/d"]
    assert set(kept.learnt["clip_id"]) == {"Up/a", "Up/b"}
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


def test_lineage_both_ways(registry: store.Registry, project: Path) -> None:
    made = registering.register("two_stream", root=project)
    commit = call("git", "rev-parse", "HEAD", at=project)
    ours = {"model": "two_stream", "version": made.version}
    of_model = lineage.trace(registry, "models:/two_stream@challenger", project)
    assert of_model["commit"] == commit and of_model["repository"] == "here"
    assert of_model["consistent"] is True and set(of_model["checkpoints"]) == set(NAMES)
    names = [one["stage"] for one in of_model["stages"]]
    assert names[0] == "raw" and "train@spatial_attended" in names and len(names) == 9
    text = telling.as_text(of_model)
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
        assert f"version {made.version}" in telling.as_text(found)
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
    found = [m for m in lineage.of_clip(registry, clip) if m["model"] == "two_stream"]
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
    nobody = [m for m in lineage.of_clip(registry, "Up/nobody") if m["subset"] != "unknown"]
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
        describing._metrics(path, empty, ["fusion", "stream"])


def test_requirements_are_exact_and_cover_what_serving_imports() -> None:
    wanted = describing.requirements(ROOT / "requirements.lock")
    assert all("==" in one for one in wanted)
    program = (
        "import sys, flowsight.serving.answering, flowsight.serving.bundle, "
        "flowsight.serving.prediction, flowsight.networks\n"
        "print(*{n.partition('.')[0] for n, m in list(sys.modules.items()) "
        "if getattr(m, '__file__', None)})"
    )
    loaded = set(call(sys.executable, "-c", program, at=ROOT).split())
    modules = {"cv2": "opencv-contrib-python-headless", "ruamel": "ruamel-yaml"}
    ours = {"cv2", "numpy", "pandas", "torch", "torchvision", "ruamel", "psutil", "scipy", "rich"}
    ours |= {"pyarrow", "lightning", "torchmetrics", "typer", "dvc", "matplotlib", "mlflow"}
    needed = {modules.get(name, name) for name in ours if name in loaded}
    assert needed <= {one.partition("==")[0] for one in wanted}
