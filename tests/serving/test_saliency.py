"""A network over images, served: equal to the stage's own masks and maps, and what it refuses."""

from __future__ import annotations

import base64
import json
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from flowsight.contract import Folders, Job
from flowsight.datasets.images import pairs as image_pairs
from flowsight.errors import InputError
from flowsight.metrics import saliency as metrics
from flowsight.params import config
from flowsight.serving import bundle, images, pyfunc_model
from flowsight.serving.answering import answer
from flowsight.serving.bundle import Bundle
from flowsight.serving.memory import Limits
from flowsight.serving.prediction import predict_video, predict_videos
from flowsight.serving.settings import Settings
from flowsight.systems.saliency import predict
from flowsight.systems.saliency import serve as saliency
from flowsight.video import pack

from .conftest import soft_picture

ROW = "fcn_f"


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of many kinds with their masks, larger and smaller than the network's 96 px."""
    root = tmp_path_factory.mktemp("images") / "raw"
    for folder in ("images", "ground_truth_mask"):
        (root / folder).mkdir(parents=True)
    kinds = {
        "large.jpg": soft_picture(140, 211, 0),
        "odd.png": soft_picture(33, 57, 1),
        "grey.png": soft_picture(80, 64, 2)[..., 0],
        "clear.png": np.dstack([soft_picture(64, 96, 3), np.full((64, 96), 90, np.uint8)]),
        "deep.tif": soft_picture(60, 60, 4).astype(np.uint16) * 257,
        "web.webp": soft_picture(96, 96, 5),
    }
    for name, image in kinds.items():
        cv2.imwrite(str(root / "images" / name), image)
        mask = np.zeros(image.shape[:2], np.uint8)
        mask[10:25, 12:40] = 255
        cv2.imwrite(str(root / "ground_truth_mask" / f"{Path(name).stem}.png"), mask)
    (root / "images/text.jpg").write_text("I am no image, only a text.")
    return root


@pytest.fixture
def settings(raw: Path) -> Settings:
    limits = Limits(max_bytes=300_000, max_side_px=220)
    return Settings(root=raw / "images", urls="0", limits=limits, max_videos=5, threads=None)


def test_equals_the_stage(tree: Path, raw: Path, over_images: Bundle, tmp_path: Path) -> None:
    """Masks, maps and F-measures of every image to the bit."""
    params = config.load(tree / "params.yaml")
    clean = Path(shutil.copytree(raw, tmp_path / "raw"))
    (clean / "images/text.jpg").unlink()
    image_pairs.write_pairs(
        clean, tmp_path / "pairs", split_ids=["1"], test_share=0.8, val_share=0.0, seed=1,
        max_quarantined=0.0,
    )  # fmt: skip
    trained = tree / f"checkpoints/sample_images/{ROW}-1"
    folders = Folders(raw=clean, items=tmp_path / "pairs", checkpoint=trained)
    predict.predict(
        Job(system="saliency", row_name=ROW, split="1", params=params, folders=folders,
            out=tmp_path),
        device="cpu",
    )  # fmt: skip
    table = pd.read_parquet(tmp_path / "predictions.parquet").set_index("item_id")
    assert len(table) == 5
    pairs = {p.item_id: p for p in image_pairs.load_pairs(clean, tmp_path / "pairs", "1")}
    shares = []
    with pack.open_pack(tmp_path / "maps.zip") as archive:
        for item, row in table.iterrows():
            pair = pairs[str(item)]
            found = predict_video(over_images, pair.image, attention=True)
            content = np.frombuffer(archive.read(f"{item}.png"), np.uint8)
            np.testing.assert_array_equal(found.levels, cv2.imdecode(content, cv2.IMREAD_GRAYSCALE))
            counts = metrics.confusion(found.mask, image_pairs.read_mask(pair.mask))
            assert counts == tuple(row[["tp", "fp", "fn", "tn"]])
            shares.append(found.mask.mean())
    assert sum(0.02 < share < 0.98 for share in shares) >= 3  # or anything would be equal


def test_the_bundle_says_whence(tree: Path, images_folder: Path, over_images: Bundle) -> None:
    described = json.loads((images_folder / "model.json").read_text())
    assert (described["system"], described["row"], described["plan"]) == (
        "saliency", ROW, {"fc6": 0.5},
    )  # fmt: skip
    assert (described["dataset"], described["split"]) == ("sample_images", "1")
    assert not {"classes", "frames", "flow"} & set(described)
    source = tree / f"checkpoints/sample_images/{ROW}-1/model.pt"
    assert (images_folder / f"{ROW}.pt").read_bytes() == source.read_bytes()
    assert not over_images.served.network.training and over_images.classes == ()
    tags = saliency.tags(described)
    assert tags == {"row": ROW, "backbone": "vgg16_bn", "plan": "fc6=0.5"}


def test_another_row_is_served_where_it_is_named(tree: Path, tmp_path: Path) -> None:
    """The base, which was not slimmed; and a name that there is none of."""
    root = Path(shutil.copytree(tree, tmp_path / "tree"))
    yaml = YAML()
    values = yaml.load(root / "params.yaml")

    def serve(row: str) -> None:
        values["systems"]["saliency"]["serve"] = row
        yaml.dump(values, root / "params.yaml")

    serve("fcn")
    described = bundle.write_bundle("saliency", tmp_path / "base", root=root)
    assert (described["row"], described["plan"]) == ("fcn", {})
    assert saliency.tags(described)["plan"] == "nothing cut"
    bundle.load_bundle(tmp_path / "base", device="cpu")
    serve("fnc")
    with pytest.raises(InputError, match=r"saliency\.serve as one of fcn, fcn_f, got 'fnc'"):
        bundle.write_bundle("saliency", tmp_path / "none", root=root)


def test_refuses_weights_of_another_size(tree: Path, images_folder: Path, tmp_path: Path) -> None:
    """The base has more kernels than the plan leaves."""
    broken = Path(shutil.copytree(images_folder, tmp_path / "broken"))
    other = tree / "checkpoints/sample_images/fcn-1/model.pt"
    shutil.copy(other, broken / f"{ROW}.pt")
    with pytest.raises(InputError, match="expected the weights that"):
        bundle.load_bundle(broken)


def test_a_servers_answers(over_images: Bundle, settings: Settings, raw: Path) -> None:
    content = base64.b64encode((raw / "images/odd.png").read_bytes()).decode()
    path, sent, bad, missing, both = answer(
        over_images,
        [{"image": "odd.png", "map": True}, {"content": content}, {"image": "text.jpg"},
         {"image": "none.png"}, {"image": "odd.png", "content": content}],
        settings,
    )  # fmt: skip
    signature, example = pyfunc_model.signature("saliency")
    assert list(example) == ["image", "map"]
    assert signature.inputs.input_names() == ["image", "content", "map"]
    for one in (path, sent, bad, missing, both):
        assert set(one) == set(signature.outputs.input_names())
    assert path["error"] is None and sent["error"] is None
    assert (path["image"], sent["image"]) == ("odd.png", None)
    assert path["mask"] == sent["mask"] and path["map"] and sent["map"] is None
    expected = predict_video(over_images, raw / "images/odd.png")
    data = np.frombuffer(base64.b64decode(path["mask"]), np.uint8)
    mask = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    assert (mask.dtype, mask.shape) == (np.uint8, (33, 57))
    np.testing.assert_array_equal(mask, expected.mask * np.uint8(255))
    assert (path["width"], path["height"]) == (57, 33)
    assert path["salient_share"] == pytest.approx(expected.mask.mean())
    assert "expected an image (JPEG, PNG" in bad["error"] and bad["mask"] is None
    assert "expected an image at 'none.png' below the served folder" in missing["error"]
    assert "either `image` or `content` for each image" in both["error"]
    assert str(raw) not in json.dumps([path, sent, bad, missing, both], allow_nan=False)


@pytest.mark.parametrize(
    ("name", "says"),
    [("../secret.png", "below the served folder"), ("http://a/b.png", "takes no URLs")],
)
def test_sources_are_checked_as_those_of_videos(
    over_images: Bundle, settings: Settings, name: str, says: str
) -> None:
    (one,) = answer(over_images, [{"image": name}], settings)
    assert says in one["error"]


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it unfolds to many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(30_000, 30_000), (8_000, 8_000), (300, 20)])
def test_what_unfolds_to_too_many_pixels_is_never_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    def never(*arguments: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", never)
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(*size))
    limits = Limits(max_side_px=220) if size[0] == 300 else Limits()
    with pytest.raises(InputError, match=r"expected at most .* in bomb\.png, got"):
        images.load(path, limits)


def test_large_files_and_images_too_large_for_the_network(
    over_images: Bundle, tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"at most 0\.001 MB, got"):
        images.load(raw / "images/odd.png", Limits(max_bytes=1000))
    monkeypatch.setattr(saliency, "MAX_SEEN_PX", 2000)
    predict_video(over_images, raw / "images/odd.png")  # 33 x 57
    with pytest.raises(InputError, match="at most 2,000 pixels, got 211 x 140; shrink it"):
        predict_video(over_images, raw / "images/large.jpg")


def test_several_images_and_one_is_none(over_images: Bundle, raw: Path) -> None:
    names = [raw / "images" / name for name in ("odd.png", "text.jpg", "odd.png")]
    first, none, last = predict_videos(over_images, names)
    assert isinstance(none, InputError)
    np.testing.assert_array_equal(first.mask, last.mask)
    with pytest.raises(InputError, match="no views or crops of an image"):
        predict_video(over_images, names[0], num_crops=1)


@pytest.mark.slow
def test_as_mlflow_stores_it(
    over_images: Bundle,
    images_folder: Path,
    raw: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Saved as code, loaded, asked by path: the mask is the same to the bit."""
    import mlflow

    signature, example = pyfunc_model.signature("saliency")
    mlflow.pyfunc.save_model(
        tmp_path / "model",
        python_model=pyfunc_model.__file__,
        pip_requirements=[],
        artifacts={pyfunc_model.ARTIFACT: str(images_folder)},
        signature=signature,
        input_example=example,
    )
    assert not list((tmp_path / "model").rglob("*.pkl"))
    monkeypatch.setenv("FLOWSIGHT_SERVE_ROOT", str(raw / "images"))
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    (one,) = model.predict(pd.DataFrame({"image": ["web.webp"]}))
    mask = cv2.imdecode(np.frombuffer(base64.b64decode(one["mask"]), np.uint8), 0)
    expected = predict_video(over_images, raw / "images/web.webp")
    np.testing.assert_array_equal(mask > 0, expected.mask)


def test_masks_and_a_picture(over_images: Bundle, raw: Path, tmp_path: Path) -> None:
    found = predict_video(over_images, raw / "images/large.jpg", attention=True)
    path = found.save_masks(tmp_path, "large")
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask > 0, found.mask)
    saliency.write_overlay(found, tmp_path / "seen.png")
    seen = cv2.imread(str(tmp_path / "seen.png"))[..., ::-1].astype(int)
    red = seen[..., 0] - seen[..., 1:].max(axis=2)
    assert (red[~found.mask] == 0).all() and (red[found.mask] > 0).mean() > 0.9
    assert found.light().pixels is None and found.lines(5)[0][0] == "211 x 140"
