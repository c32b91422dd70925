"""Every variant of the maps is scored against the true masks, and the page says what it is."""

from __future__ import annotations

import dataclasses
import shutil
from types import SimpleNamespace

import pandas as pd
import pytest

from flowsight.batches.clips import load_clips
from flowsight.classifiers import localization
from flowsight.classifiers.params import ExplainsParams
from flowsight.contract import Folders
from flowsight.params.config import Params
from flowsight.systems.two_stream import report
from flowsight.systems.two_stream.evaluate import evaluate
from flowsight.systems.two_stream.params import FusionParams

from .conftest import changed, folders_of, started

VARIANTS = {
    "block1": ({}, ("layer2",)),
    "blocks": ({}, ("layer2", "layer3", "layer4")),
    "keys": ({"key_every": 4}, ("layer4",)),
    "learnt": ({"through": "other"}, ("layer4",)),
}


def with_variants(params: Params) -> Params:
    """Attended rows that see other maps, and the two controls, each with a fusion."""
    block = params.system("two_stream")
    rows, fusions = dict(block.rows), dict(block.evaluate.fusions)
    for name, (explains, layers) in VARIANTS.items():
        for own, other in (("spatial", "temporal"), ("temporal", "spatial")):
            row = rows[own]
            given = {key: other if value == "other" else value for key, value in explains.items()}
            network = dataclasses.replace(row.network, target_layers=layers)
            rows[f"{own}_{name}"] = dataclasses.replace(
                started(row, explains=ExplainsParams(row=own, **given)), network=network
            )
            attended = started(rows[f"{other}_attended"], maps=f"{own}_{name}")
            rows[f"{other}_attended_{name}"] = attended
        streams = {s: f"{s}_attended_{name}" for s in ("spatial", "temporal")}
        fusions[name] = FusionParams(**streams)
    for control in ("constant", "shuffled"):
        for stream in ("spatial", "temporal"):
            attended = started(rows[f"{stream}_attended"], map_control=control)
            rows[f"{stream}_{control}"] = attended
        fusions[control] = FusionParams(
            spatial=f"spatial_{control}", temporal=f"temporal_{control}"
        )
    numbers = {"fusions": fusions, "headline": "attention", "num_overlays": 0,
               "bootstrap_samples": 0}  # fmt: skip
    return changed(params, "two_stream", rows=rows, evaluate=numbers)


@pytest.fixture(scope="module")
def world(
    world_template: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    """The made-up world with predictions and maps of the variants; `results` is evaluated."""
    root = tmp_path_factory.mktemp("variants") / "world"
    shutil.copytree(world_template.root, root)
    params = with_variants(world_template.params)
    known = world_template.params.system("two_stream").rows
    for name, row in params.system("two_stream").rows.items():
        for split_id in params.splits.ids:
            base = name.split("_")[0]
            if row.start.explains is not None:
                source = root / f"attention/{base}-{split_id}"
                shutil.copytree(source, root / f"attention/{name}-{split_id}")
            elif name not in known:
                source = root / f"predictions/{base}_attended-{split_id}"
                shutil.copytree(source, root / f"predictions/{name}-{split_id}")
    folders = folders_of(root)
    out = root / "results" / "two_stream"
    out.parent.mkdir()
    evaluate(params, folders, out)
    return SimpleNamespace(root=root, params=params, folders=folders, results=out)


def test_every_variant_is_scored(world: SimpleNamespace) -> None:
    metrics = pd.read_json(world.results / "metrics.json", typ="series").to_dict()
    table = pd.read_csv(world.results / "localization.csv")
    makers = [f"{s}_{name}" for name in VARIANTS for s in ("spatial", "temporal")]
    controls = [f"{s}_{name}" for name in ("constant", "shuffled") for s in ("spatial", "temporal")]
    assert set(table["row"]) == {"spatial", "temporal", *makers, *controls}
    assert set(table["subset"]) == {"train", "val", "test"}
    for row in table["row"].unique():
        for measure in localization.MEASURES:
            assert 0 < metrics[f"localization/{row}/{measure}"] <= 1
    # the same maps under another row's name score the same
    for measure in localization.MEASURES:
        same = metrics[f"localization/spatial_blocks/{measure}"]
        assert same == metrics[f"localization/spatial/{measure}"]


def test_controls_are_scored_by_what_they_see(world: SimpleNamespace) -> None:
    """The constant finds by chance; a map of another clip less than the clip's own."""
    scores = pd.read_csv(world.results / "localization.csv").set_index(
        ["row", "split_id", "subset"]
    )
    for stream, other in (("spatial", "temporal"), ("temporal", "spatial")):
        constant = scores.loc[f"{stream}_constant"]
        for measure in ("pointing_game", "energy_in_mask", "iou"):
            pd.testing.assert_series_equal(
                constant[measure], constant["chance"], check_names=False, atol=2e-6, rtol=0
            )
        own, shuffled = scores.loc[other], scores.loc[f"{stream}_shuffled"]
        assert (shuffled["chance"] == own["chance"]).all()
        assert shuffled["energy_in_mask"].mean() < own["energy_in_mask"].mean()


def test_shuffled_maps_are_those_that_training_shuffles(world: SimpleNamespace) -> None:
    manifest, root = world.folders["manifest"], world.root
    clips, _ = load_clips(
        manifest, root / "splits/1.csv", root / "frames", root / "attention/temporal-1",
        map_control="shuffled",
    )  # fmt: skip
    expected = {clip.clip_id: clip.maps for clip in clips}
    classes = pd.read_csv(manifest / "classes.csv")["label"].tolist()
    listed = pd.read_csv(manifest / "clips.csv")
    labels = dict(zip(listed["clip_id"], listed["label"].map(classes.index), strict=True))
    split = pd.read_csv(root / "splits/1.csv")
    shown = localization.Shown(row="temporal", control="shuffled")
    lenders = localization._lenders(split, labels, shown)
    folder = root / "attention/temporal-1"
    assert {clip: folder / f"{lender}.zip" for clip, _, lender in lenders} == expected
    assert [clip for clip, _, _ in lenders] == split["clip_id"].tolist()


def test_the_page_says_what_each_map_is(world: SimpleNamespace) -> None:
    history, manifest = world.root / "history", world.folders["manifest"]
    folders = Folders(results=world.results, history=history, manifest=manifest)
    shown = report.content(world.params, folders)["localization"]
    how = {card["row"]: card["how"] for card in shown["maps"]}
    assert how["spatial"] == "Grad-CAM of layer4"
    assert how["spatial_blocks"] == "Grad-CAM of spatial's layer2 + layer3 + layer4"
    assert how["temporal_keys"] == "Grad-CAM of temporal's layer4, every 4 frames"
    assert how["temporal_learnt"] == "temporal's layer4, learnt through spatial's loss"
    assert how["spatial_shuffled"] == "temporal's, of other clips, as spatial_shuffled sees them"
    assert {card["row"] for card in shown["maps"] if card["tile"]} == {"spatial", "temporal"}
    source = {(row["row"], row["subset"]): row["source"] for row in shown["rows"]}
    assert source["spatial_keys", "train"] == "Grad-CAM, label known"
    assert source["spatial_learnt", "train"] == source["spatial", "test"] == "attention network"
    assert source["spatial_constant", "train"] == "no network"
