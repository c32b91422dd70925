"""The bundle: what is in it, and what is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from flowsight.errors import InputError
from flowsight.nn import checkpoint
from flowsight.params import schema
from flowsight.serving.bundle import load_bundle, write_bundle
from flowsight.serving.prediction import predict_video

from .conftest import CLASSES, lock, soft_picture

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
        assert stream.row.start.maps == {"spatial": "temporal", "temporal": "spatial"}[name]
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
        (lambda d: d.update(format=3), "format 2 or 1"),
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


# format 1, as the versions before rows had five blocks wrote it -----------------------------------


def old_clip_row(system: str, row: dict) -> dict:
    start = row["start"]
    return {
        "system": system,
        "model": system,
        "task": "classification",
        "init": start["init"],
        "maps": start["maps"],
        "map_control": start["map_control"],
        "explains": start["explains"],
        "network": {**row["network"], "weights": start["weights"]},
        "input": row["input"],
        "train": {name: value for name, value in row["train"].items() if name != "loss"},
        "test": row["test"],
    }


def old_image_row(row: dict) -> dict:
    start = row["start"]
    return {
        "model": "saliency",
        "task": "saliency",
        "init": start["init"],
        "slim": start["slim"],
        "experiment": "f",
        "network": {**row["network"], "weights": start["weights"]},
        "input": row["input"],
        "loss": row["train"]["loss"],
        "train": {name: value for name, value in row["train"].items() if name != "loss"},
    }


def old_scene_row(row: dict) -> dict:
    return {
        "model": "background",
        "task": "segmentation",
        "network": row["network"],
        "input": row["input"],
        "train": row["train"],
        "threshold": row["test"]["threshold"],
    }


OLD_ROW: dict[str, Callable[[dict], dict]] = {
    "two_stream": lambda row: old_clip_row("two_stream", row),
    "residual3d": lambda row: old_clip_row("residual3d", row),
    "saliency": old_image_row,
    "background": old_scene_row,
}
BUNDLES = {
    "two_stream": "folder",
    "residual3d": "clips_folder",
    "saliency": "images_folder",
    "background": "scenes_folder",
}


def answers(found: Any) -> list[np.ndarray]:
    """All numbers of a prediction, whichever system made it."""
    if hasattr(found, "logits"):
        maps = [found.attention[name] for name in sorted(found.attention)]
        return [*(found.logits[name] for name in sorted(found.logits)), *maps]
    if hasattr(found, "levels"):
        return [found.mask, found.levels]
    return [np.array(found.shares), *(np.frombuffer(mask, np.uint8) for mask in found.masks)]


@pytest.mark.parametrize("system", BUNDLES)
def test_reads_what_format_1_wrote(
    system: str, videos: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    new = request.getfixturevalue(BUNDLES[system])
    old = Path(shutil.copytree(new, tmp_path / "old"))

    def rewrite(described: dict) -> None:
        described["format"] = 1
        described["rows"] = {n: OLD_ROW[system](row) for n, row in described["rows"].items()}

    describe(old, rewrite)
    written = json.loads((old / "model.json").read_text())
    assert all("start" not in row and "model" in row for row in written["rows"].values())
    before, after = load_bundle(new, device="cpu"), load_bundle(old, device="cpu")
    kind, names = before.system.ROW, before.description["rows"]
    assert list(names) == list(after.description["rows"]) == list(written["rows"])
    assert rows_of(after) == rows_of(before)
    assert all(isinstance(row, kind) for row in rows_of(after).values())
    source = videos / "walk.avi"
    if system == "saliency":
        source = tmp_path / "spots.png"
        cv2.imwrite(str(source), soft_picture(40, 70, 1))
    expected, found = (predict_video(b, source, attention=True) for b in (before, after))
    assert len(answers(expected)) >= 2
    for one, other in zip(answers(expected), answers(found), strict=True):
        np.testing.assert_array_equal(one, other)


def rows_of(loaded: Any) -> dict[str, Any]:
    """The rows of a bundle as its system reads them."""
    kind, rows = loaded.system.ROW, loaded.description["rows"]
    return {name: schema.read(kind, row, f"rows.{name}") for name, row in rows.items()}


@pytest.mark.parametrize("found", [0, 3, "1", None])
def test_refuses_any_other_format_in_one_line(found: object, broken: Path) -> None:
    describe(broken, lambda d: d.update(format=found))
    with pytest.raises(InputError, match=r"expected a model of format 2 or 1 in") as error:
        load_bundle(broken)
    assert f"got {found!r}; use the flowsight version that wrote it" in str(error.value)
    assert "\n" not in str(error.value)
