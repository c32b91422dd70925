"""Maps of images at their own size, what they cost, and the parameters that rows come from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from flowsight.datasets.images import pairs as image_pairs
from flowsight.errors import InputError
from flowsight.metrics import saliency as metrics
from flowsight.nn import checkpoint, cost, slimming
from flowsight.params.training import TrainParams
from flowsight.pipeline import composing
from flowsight.systems.residual3d import network as residual3d
from flowsight.systems.saliency import instances, networks
from flowsight.systems.saliency import network as saliency
from flowsight.systems.saliency import predict as saliency_inference
from flowsight.systems.saliency.params import (
    Block,
    EvaluateParams,
    ImageInputParams,
    ImageNetworkParams,
    ImageRowParams,
    ImageStartParams,
    SlimParams,
)
from flowsight.video import pack
from tests.conftest import job_of

ROOT = Path(__file__).resolve().parents[1]
TRAIN = TrainParams(
    epochs=1, samples_per_epoch=1, batch_size=1, accumulate=1, optimizer="sgd", lr=0.1,
    momentum=0.9, weight_decay=0.0, schedule="constant", milestones=(), gamma=0.1, patience=None,
    precision="32-true", devices=1, loss="mean",
)  # fmt: skip
BASE = ImageRowParams(
    start=ImageStartParams(),
    network=ImageNetworkParams(backbone="vgg16", width=1, border="same"),
    input=ImageInputParams(long_px=24, scales=(1.0,), flip=False),
    train=TRAIN,
)
BLOCK = Block(
    plans={"f": {"fc6": 0.5}},
    rows={
        "base": BASE,
        "f": dataclasses.replace(
            BASE, start=ImageStartParams(init="base", slim=SlimParams(plan="f", choice="first"))
        ),
    },
    evaluate=EvaluateParams(
        bootstrap_samples=0, confidence=0.95, num_pictures=1, experiments={"base": "base"}
    ),
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy")
    (root / "raw/Imgs").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(8):
        shape = ((31, 45), (20, 17))[i % 2]
        mask = np.zeros(shape, np.uint8)
        mask[5:15, 4:12] = 255
        cv2.imwrite(str(root / f"raw/Imgs/{i}.jpg"), rng.integers(0, 255, (*shape, 3)))
        cv2.imwrite(str(root / f"raw/Imgs/{i}.png"), mask)
    image_pairs.write_pairs(
        root / "raw", root / "pairs", split_ids=("1",), test_share=0.5, val_share=0.5, seed=1,
        max_quarantined=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    network = networks.build(BASE)
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
    checkpoint.save(network.state_dict(), root / "base/model.pt")
    row = BLOCK.rows["f"]
    slim = networks.slimmed(network, row, BLOCK.plan_of(row), seed=1)
    checkpoint.save(slim.state_dict(), root / "f/model.pt")
    return root


def predict(toy: Path, row: str, out: Path) -> tuple[pd.DataFrame, Path]:
    folders = {"raw": toy / "raw", "items": toy / "pairs", "checkpoint": toy / row}
    saliency_inference.predict(job_of("saliency", BLOCK, row, out, **folders))
    return pd.read_parquet(out / "predictions.parquet"), out / "maps.zip"


def test_maps_are_the_networks_at_the_images_size(toy: Path, tmp_path: Path) -> None:
    table, maps = predict(toy, "base", tmp_path)
    pairs = {p.item_id: p for p in image_pairs.load_pairs(toy / "raw", toy / "pairs", "1")}
    assert set(table["subset"]) == {"val", "test"} and len(table) == 6
    network = networks.restored(BASE, {}, toy / "base").eval()
    seen = set()
    for row in table.to_dict("records"):
        pair = pairs[row["item_id"]]
        image, mask = image_pairs.read_image(pair.image), image_pairs.read_mask(pair.mask)
        with pack.open_pack(maps) as archive:
            data = np.frombuffer(archive.read(f"{pair.item_id}.png"), np.uint8)
        levels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        assert levels.shape == mask.shape and levels.dtype == np.uint8
        height, width = mask.shape
        factor = min(1, 24 / max(height, width))
        size = (round(width * factor), round(height * factor))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if factor < 1 else image
        x = (small / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
        with torch.inference_mode():
            scores = network(torch.from_numpy(x).permute(2, 0, 1)[None].float())
            scores = nn.functional.interpolate(scores, (height, width), mode="bilinear")
        wanted = scores.softmax(dim=1)[0, 1].numpy()
        assert np.abs(levels / 255 - wanted).max() < 0.01
        counts = metrics.confusion((scores[0, 1] > scores[0, 0]).numpy(), mask)
        assert abs(row["tp"] - counts[0]) <= 1 and sum(counts) == mask.size
        assert row["tp"] + row["fn"] == mask.sum()
        seen.add(levels.shape)
    assert len(seen) == 2


def test_twice_the_same_bytes(toy: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        predict(toy, "f", tmp_path / name)
    for file in ("predictions.parquet", "maps.zip"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_slim_network_is_smaller_and_says_so(toy: Path, tmp_path: Path) -> None:
    full = pack.read_meta(predict(toy, "base", tmp_path)[1])
    slim = pack.read_meta(predict(toy, "f", tmp_path)[1])
    assert (full["height"], full["width"]) == (18, 24)
    # fc6 has 7 x 7 x 8 x 64 weights and 64 biases, fc7 64 x 64: half of them are gone
    assert full["num_parameters"] - slim["num_parameters"] == 32 * (49 * 8 + 1) + 32 * 64
    assert full["multiply_adds"] - slim["multiply_adds"] == 1 * (32 * 49 * 8 + 32 * 64)


def test_diverged_networks_are_refused(toy: Path, tmp_path: Path) -> None:
    network = networks.restored(BASE, {}, toy / "base")
    network.score_fr.bias.data.fill_(float("nan"))
    pair = image_pairs.load_pairs(toy / "raw", toy / "pairs", "1")[0]
    with pytest.raises(InputError, match="expected finite scores"):
        saliency_inference.saliency_map(network.eval(), pair, BASE.input)
    with pytest.raises(InputError, match="expected a checkpoint"):
        networks.restored(BASE, {"fc6": 0.5}, tmp_path)
    with pytest.raises(InputError, match=r"of the wrong shape \(fc6"):
        networks.restored(BASE, {}, toy / "f")


@pytest.mark.parametrize("name", ["fcn", "published", "squeezenet", "r3d"])
def test_costs_are_torch_s_own_count(name: str) -> None:
    x = torch.zeros(1, 3, 20, 33)
    if name == "r3d":
        network: nn.Module = residual3d.build(
            backbone="resnet3d_10", modality="rgb", num_classes=3, width=2
        )
        x = torch.zeros(1, 3, 4, 20, 20)
    elif name == "squeezenet":
        network = saliency.build(backbone="squeezenet1_0", width=2, border="same")
    else:
        border = "same" if name == "fcn" else "published"
        network = saliency.build(backbone="vgg16_bn", width=1, border=border)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.eval()(x)
    assert cost.multiply_adds(network, x) * 2 == counter.get_total_flops()


# parameters


def composed(tmp_path: Path, *overrides: str) -> Block:
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    block: Block = composing.compose(list(overrides), root=tmp_path).system("saliency")
    return block


@pytest.mark.parametrize("recipe", ["smoke", "sample", "small", "paper"])
def test_every_plan_fits_the_network_of_its_recipe(tmp_path: Path, recipe: str) -> None:
    block = composed(tmp_path, f"recipe={recipe}", "study=[slimming,kernels]", "images=ecssd")
    experiments = block.evaluate.experiments
    assert sorted(experiments) == ["a", "b", "base", "c", "d", "e", "f", "g", "h"]
    first = block.rows["fcn"].network
    small = dataclasses.replace(first, width=2, border="same")
    row = dataclasses.replace(block.rows["fcn"], network=small)
    network = networks.build(row)
    example = torch.zeros(1, 3, 16, 16)
    full = cost.multiply_adds(network, example)
    for name, own in block.rows.items():
        cut = slimming.plan_cut(network, block.plan_of(own), example)
        slim = slimming.apply(network, cut)
        assert (cost.multiply_adds(slim, example) < full) == (own.start.slim is not None), name
    slims = [r.start.slim for n, r in block.rows.items() if n not in experiments.values()]
    choices = [slim.choice for slim in slims if slim]
    assert choices == ["random", "l1", "taylor"]


def test_the_papers_recipe_is_the_papers(tmp_path: Path) -> None:
    block = composed(tmp_path, "recipe=paper", "images=msra10k")
    row = block.rows["fcn"]
    assert (row.network.backbone, row.network.width, row.network.border) == (
        "vgg16", 64, "published",
    )  # fmt: skip
    train = row.train
    assert (train.loss, train.optimizer, train.lr) == ("sum", "sgd", 1e-14)
    assert (train.momentum, train.weight_decay, train.batch_size) == (0.99, 5e-4, 1)
    assert train.epochs * 7500 == pytest.approx(100_000, rel=0.06)
    assert row.input.long_px is None and block.rows["fcn_f"].train == train


def test_wrong_rows_and_plans_are_named(tmp_path: Path) -> None:
    for number, (override, message) in enumerate(
        (
            ("R.fcn_f.start.init=nobody", "rows.fcn_f.start.init names no row: 'nobody'"),
            ("R.fcn_f.start.slim.plan=z", "slim.plan names no plan: 'z'"),
            ("R.fcn_f.start.init=null", "slim needs init"),
            ("R.fcn_f.start.slim.choice=best", "choice must be one of first, random"),
            ("systems.saliency.plans.f.fc6=0", "plans.f: shares in"),
            ("R.fcn.train.loss=max", "loss must be one of sum, mean"),
            ("images.test_share=1", "test_share must be in"),
            ("R.fcn_f.network={backbone:vgg16}", "must have the network of"),
        )
    ):
        with pytest.raises(InputError) as error:
            composed(tmp_path / str(number), override.replace("R.", "systems.saliency.rows."))
        assert message in str(error.value), override


def test_instances_are_rows_by_splits() -> None:
    images = {"name": "x", "split_ids": ["1", "2"]}
    block = {
        "rows": {
            name: {
                "start": {
                    "init": init,
                    "slim": None if init is None else {"plan": "f"},
                    "weights": "w.pth" if init is None else None,
                },
            }
            for name, init in (("fcn", None), ("fcn_f", "fcn"))
        },
    }
    found = instances.instances(block, {"images": images})
    assert list(found["train"]) == ["fcn-1", "fcn-2"]
    assert found["train"]["fcn-1"]["also"] == ["data/weights/w.pth"]
    assert {k: v["folders"]["start"] for k, v in found["refine"].items()} == {
        "fcn_f-1": "checkpoints/x/fcn-1", "fcn_f-2": "checkpoints/x/fcn-2",
    }  # fmt: skip
    # a stage hangs on its own plan, and on no other
    assert all(i["params"] == ["systems.saliency.plans.f"] for i in found["refine"].values())
    assert found["predict"]["fcn-1"]["params"] == []
    assert list(found["predict"]) == ["fcn-1", "fcn-2", "fcn_f-1", "fcn_f-2"]
    read = {"predictions/saliency/x", "data/items/saliency/x", "data/raw/x"}
    assert set(found["evaluate"]["saliency"]["folders"].values()) == read
