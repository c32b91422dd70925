"""The bundle: what is in it, and what is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flowsight.errors import InputError
from flowsight.nn import checkpoint
from flowsight.serving.bundle import load_bundle, write_bundle

from .conftest import CLASSES, lock

NAMES = ("spatial", "temporal")


def hashes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_holds_six_networks_and_says_whence(tree: Path, folder: Path) -> None:
    described = json.loads((folder / "model.json").read_text())
    assert described["classes"] == list(CLASSES)
    assert (described["system"], described["dataset"], described["split"]) == (
        "two_stream",
        "sample",
        "1",
    )
    assert described["fusion"] == {
        "name": "attention",
        "method": "Spatio-Temporal Attention",
        "value": 0.35,
        "source": "validation",
    }
    rows = [*NAMES, *(f"{n}_attended" for n in NAMES), *(f"attention-{n}" for n in NAMES)]
    assert sorted(described["files"]) == sorted(rows)
    locked = {
        out["path"]: out["md5"]
        for out in json.loads((tree / "dvc.lock").read_text())["stages"]["all"]["outs"]
    }
    for row, listed in described["files"].items():
        source = tree / listed["path"]
        assert source == tree / f"checkpoints/sample/{row}-1/model.pt"
        assert (folder / listed["file"]).read_bytes() == source.read_bytes()
        assert listed["stage_md5"] == locked[f"checkpoints/sample/{row}-1"]
    assert len(list(folder.iterdir())) == 7


def test_same_bytes_again(tree: Path, folder: Path, tmp_path: Path) -> None:
    returned = write_bundle("two_stream", tmp_path / "again", root=tree)
    assert hashes(tmp_path / "again") == hashes(folder)
    assert returned == json.loads((folder / "model.json").read_text())


def test_loads(folder: Path) -> None:
    loaded = load_bundle(str(folder), device="cpu")
    assert loaded.classes == CLASSES
    assert loaded.served.weight == 0.35
    assert loaded.frames.size == (72, 54)
    for name, stream in loaded.served.streams.items():
        assert stream.row.maps == {"spatial": "temporal", "temporal": "spatial"}[name]
        assert not stream.phase2.training and not stream.attention.training


@pytest.fixture
def copy(tree: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tree, tmp_path / "tree"))


def test_refuses_other_systems(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"\(background, residual3d, saliency, two_stream\), got 'salient'"
    ):
        write_bundle("salient", tmp_path / "out", root=tree)
    assert not (tmp_path / "out").exists()


def test_refuses_another_split(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a split of 1, got '7'"):
        write_bundle("two_stream", tmp_path / "out", root=tree, split_id="7")


def test_refuses_a_stale_checkpoint(copy: Path, tmp_path: Path) -> None:
    path = copy / "checkpoints/sample/temporal-1/model.pt"
    state = checkpoint.load(path)
    checkpoint.save({name: tensor * 1 for name, tensor in reversed(state.items())}, path)
    with pytest.raises(InputError, match=r"temporal-1 as dvc.lock knows it"):
        write_bundle("two_stream", tmp_path / "out", root=copy)
    described = write_bundle("two_stream", tmp_path / "out", root=copy, check_lock=False)
    assert described["files"]["temporal"]["stage_md5"].endswith(".dir")
    lock(copy)
    write_bundle("two_stream", tmp_path / "out", root=copy)


def test_refuses_stale_results(copy: Path, tmp_path: Path) -> None:
    with (copy / "results/two_stream/per_split.csv").open("a") as file:
        file.write("attention,2,spatial,0.5,default\n")
    with pytest.raises(InputError, match=r"results/two_stream as dvc.lock knows it"):
        write_bundle("two_stream", tmp_path / "out", root=copy)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("checkpoints/sample/attention-spatial-1/model.pt", "expected a checkpoint in"),
        ("results/two_stream/per_split.csv", "results/two_stream as dvc.lock knows it"),
        ("data/manifests/sample/classes.csv", "expected a table in"),
        ("dvc.lock", r"expected results/two_stream in .*dvc.lock, found none"),
        ("params.yaml", "expected parameters in"),
    ],
)
def test_says_what_is_missing(gone: str, message: str, copy: Path, tmp_path: Path) -> None:
    (copy / gone).unlink()
    with pytest.raises(InputError, match=message):
        write_bundle("two_stream", tmp_path / "out", root=copy)


@pytest.fixture
def broken(folder: Path, tmp_path: Path) -> Path:
    """A bundle to spoil."""
    return Path(shutil.copytree(folder, tmp_path / "broken"))


class Evil:
    """Runs code when unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (Path("evil-was-here"),))


def describe(folder: Path, change: Callable[[dict], None]) -> None:
    described = json.loads((folder / "model.json").read_text())
    change(described)
    (folder / "model.json").write_text(json.dumps(described))


def test_never_runs_code_of_a_file(
    broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for write in (lambda p: p.write_bytes(pickle.dumps(Evil())), lambda p: torch.save(Evil(), p)):
        write(broken / "spatial.pt")
        with pytest.raises(InputError, match="broken or holds other objects"):
            load_bundle(broken)
    assert not (tmp_path / "evil-was-here").exists()


def test_refuses_changed_weights(broken: Path) -> None:
    shutil.copy(broken / "spatial_attended.pt", broken / "spatial.pt")
    with pytest.raises(InputError, match=r"expected the weights that .* lists in"):
        load_bundle(broken)


def test_refuses_weights_of_another_network(broken: Path) -> None:
    def swap(described: dict) -> None:
        listed = described["files"]
        listed["spatial"], listed["temporal"] = listed["temporal"], listed["spatial"]

    describe(broken, swap)
    with pytest.raises(InputError, match=r"weights of its row in .*spatial.pt, got .*shape"):
        load_bundle(broken)


def test_refuses_a_network_as_attention(broken: Path) -> None:
    def swap(described: dict) -> None:
        described["files"]["attention-spatial"] = described["files"]["spatial"]

    describe(broken, swap)
    with pytest.raises(InputError, match=r"attention-spatial.pt"):
        load_bundle(broken)


def test_reads_no_file_beside_the_bundle(broken: Path) -> None:
    shutil.move(broken / "spatial.pt", broken.parent / "spatial.pt")
    describe(broken, lambda d: d["files"]["spatial"].update(file="../spatial.pt"))
    with pytest.raises(InputError, match="found no such file"):
        load_bundle(broken)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("classes"), "whole description"),
        (lambda d: d["files"].pop("temporal"), "whole description"),
        (lambda d: d["streams"].update(spatial="other"), "whole description"),
        (lambda d: d["fusion"].update(value=1.5), "whole description"),
        (lambda d: d["fusion"].update(value=None), "whole description"),
        (lambda d: d.update(format=2), "format 1"),
        (lambda d: d["rows"]["spatial"].pop("network"), r"rows.spatial.network"),
        (lambda d: d["flow"].update(backend="auto"), "backend must be one of"),
    ],
)
def test_refuses_other_descriptions(
    change: Callable[[dict], None], message: str, broken: Path
) -> None:
    describe(broken, change)
    with pytest.raises(InputError, match=message):
        load_bundle(broken)


def test_refuses_what_is_no_bundle(broken: Path, tmp_path: Path) -> None:
    (broken / "model.json").write_text("{")
    with pytest.raises(InputError, match="expected JSON"):
        load_bundle(broken)
    with pytest.raises(InputError, match=r"found no model.json"):
        load_bundle(tmp_path / "nowhere")
