"""The recipes do what their data sets need: paper scale runs, the sample teaches both streams."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from flowsight.errors import InputError
from flowsight.params import config
from flowsight.pipeline import composing

if TYPE_CHECKING:
    from conftest import Toy

ROOT = Path(__file__).resolve().parents[1]


def composed(folder: Path, *overrides: str) -> config.Params:
    (folder / "conf").symlink_to(ROOT / "conf")
    return composing.compose(list(overrides), root=folder)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["ucf101", "hmdb51"])
def test_paper_scale_dry_run(
    tmp_path: Path, toy: Toy, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few steps of the full-size network at 299 px, both phases, and its maps."""
    import torch

    from flowsight.batches.clips import full_frames, load_clips
    from flowsight.classifiers import networks
    from flowsight.nn import checkpoint
    from flowsight.nn.gradcam import grad_cam
    from flowsight.systems.two_stream import network as two_stream
    from flowsight.training import loop

    monkeypatch.setenv("FLOWSIGHT_SCRATCH", str(tmp_path / "scratch"))
    params = composed(
        tmp_path,
        f"dataset={dataset}",
        "recipe=paper",
        "systems.two_stream.rows.spatial.start.weights=null",  # the weights are a download
        "systems.two_stream.rows.spatial.train.epochs=1",
        "systems.two_stream.rows.spatial.train.batch_size=5",
    )
    rows = params.system("two_stream").rows
    assert rows["spatial"].network.backbone == "inception_v3"
    assert (rows["temporal"].input.crop_px, rows["temporal"].input.stack_length) == (299, 10)
    assert params.flow.preset == "cuda"

    def fit(name: str, packs: Path, **more: Path) -> dict[str, torch.Tensor]:
        state, history = loop.fit(
            model=two_stream,
            row=rows[name],
            row_name=name,
            params=params,
            manifest=toy.manifest,
            split=toy.split,
            packs=packs,
            scratch_key=f"dry/{name}",
            log=lambda metrics, step: None,
            **more,
        )
        assert len(history) == 1
        assert np.isfinite(history[0].train_loss)
        return state

    stream, packs = ("spatial", toy.frames) if dataset == "ucf101" else ("temporal", toy.flow)
    state = fit(stream, packs)
    checkpoint.save(state, tmp_path / "phase1/model.pt")
    attended = fit(f"{stream}_attended", packs, init=tmp_path / "phase1", maps=toy.maps)
    assert any(not torch.equal(state[key], attended[key]) for key in state)
    network = networks.build(two_stream, rows[stream], 2)
    network.load_state_dict(state)
    clips, _ = load_clips(toy.manifest, toy.split, packs)
    x = full_frames(clips[0], rows[stream].input, [0])
    maps = grad_cam(network.eval(), x, torch.tensor([0]), rows[stream].network.target_layers)
    assert min(maps.shape[1:]) >= 8
    assert 0 <= float(maps.min()) <= float(maps.max()) <= 1


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, config.Params]:
    """The default data set, rendered and packed (clips, splits, frames, flow)."""
    from dataclasses import asdict

    from flowsight.datasets.clips import flow, frames, manifest, splits
    from flowsight.samples import rendering as renderer

    root = tmp_path_factory.mktemp("sample")
    params = composed(root)
    renderer.render(root / "raw", root / "scenes", root / "images", **asdict(params.sample))
    manifest.write_manifest(
        root / "raw",
        root / "manifest",
        root / "shards",
        root / "truth",
        adapter=params.dataset.adapter,
        shards=params.shards,
        max_absent=0.0,
    )
    settings = asdict(params.flow)
    for k in params.shards:
        frames.pack_frames(root / f"shards/{k}", root / f"frames/{k}", size=None, quality=95)
        flow.pack_flow(root / f"shards/{k}", root / f"flow/{k}", size=None, **settings)
    splits.write_splits(
        root / "manifest",
        root / "manifest/status.csv",
        root / "splits",
        ids=params.splits.ids,
        val_share=params.splits.val_share,
        seed=params.seed,
        max_absent=0.0,
    )
    return root, params


@pytest.mark.slow
def test_neither_stream_alone_solves_the_sample_and_both_together_do(
    sample: tuple[Path, config.Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over three seeds, fused beats the better stream on at least 32 test clips."""
    import dataclasses

    from flowsight.classifiers import scores
    from flowsight.metrics.classification import softmax
    from flowsight.nn import checkpoint
    from flowsight.systems.two_stream import network as two_stream
    from flowsight.training import loop

    monkeypatch.setenv("FLOWSIGHT_SCRATCH", str(tmp_path / "scratch"))
    root, params = sample
    results = []
    for seed in (1, 2, 3):
        seeded = dataclasses.replace(params, seed=seed)
        probs, right = {}, {}
        for name, kind in (("spatial", "frames"), ("temporal", "flow")):
            where = {
                "manifest": root / "manifest",
                "split": root / "splits/1.csv",
                "packs": root / kind,
            }
            state, _ = loop.fit(
                model=two_stream,
                row=params.row(name),
                row_name=name,
                params=seeded,
                scratch_key=f"{seed}/{name}",
                log=lambda metrics, step: None,
                **where,
            )
            checkpoint.save(state, tmp_path / f"{seed}/{name}/model.pt")
            predicted = scores.predict(
                model=two_stream,
                row=params.row(name),
                params=seeded,
                checkpoint_dir=tmp_path / f"{seed}/{name}",
                **where,
            )
            table = predicted.to_pandas()
            table = table[table.subset == "test"].sort_values("clip_id")
            logits = table.filter(like="logit_")
            names = np.array([column.removeprefix("logit_") for column in logits.columns])
            probs[name] = softmax(logits.to_numpy())
            right[name] = np.mean(names[probs[name].argmax(1)] == table.label.to_numpy())
        fused = np.mean(
            names[(probs["spatial"] + probs["temporal"]).argmax(1)] == table.label.to_numpy()
        )
        assert len(table) >= 32
        results.append((right["spatial"], right["temporal"], fused))
    print(results)
    assert np.mean([fused - max(one, other) for one, other, fused in results]) > 0.1
    assert all(fused > max(one, other) for one, other, fused in results)


@pytest.mark.parametrize("recipe", ["sample", "smoke", "small", "paper"])
def test_networks_over_clips_are_made(tmp_path: Path, recipe: str) -> None:
    """Every row of every recipe fits its network's switches; nothing is computed."""
    import torch

    from flowsight.classifiers import networks
    from flowsight.systems.residual3d import network as residual3d

    params = composed(tmp_path, "dataset=ucf101", f"recipe={recipe}")
    found = params.system("residual3d").rows
    assert {"resnet3d", "resnet3d_attention"} <= set(found)
    for row in found.values():
        with torch.device("meta"):
            network = networks.build(residual3d, row, 101)
        if row.network.attention is not None:
            assert residual3d.spatial_attentions(network, row.network.target_layers[0])
    if recipe == "paper":
        assert {row.network.backbone for row in found.values()} == {
            "resnet3d_50", "densenet3d_24", "c3d",
        }  # fmt: skip
        train, seen = found["resnet3d_attention"].train, found["resnet3d_attention"].input
        assert (train.optimizer, train.nesterov, train.lr) == ("sgd", True, 0.1)
        assert (train.weight_decay, train.epochs) == (1e-4, 100)
        assert train.batch_size * train.accumulate == 8
        assert (seen.fps, seen.clip_length, seen.crop_px) == (16.0, 16, 224)
        assert found["resnet3d_attention_flow"].input.modality == "flow"


@pytest.mark.slow
def test_kinetics_weights_from_the_file_to_a_trained_row(
    tmp_path: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision's r3d_18 has 400 classes; fine-tuned a little, the network is still near it."""
    import torch
    from torchvision.models.video import r3d_18

    from flowsight.classifiers import networks
    from flowsight.datasets.importing import import_weights
    from flowsight.systems.residual3d import network as residual3d
    from flowsight.training import loop

    monkeypatch.setenv("FLOWSIGHT_SCRATCH", str(tmp_path / "scratch"))
    torch.manual_seed(0)
    kinetics = r3d_18(num_classes=400).state_dict()
    torch.save(kinetics, tmp_path / "r3d_18-kinetics400.pth")
    import_weights(tmp_path / "r3d_18-kinetics400.pth", tmp_path / "weights")
    changes = {
        "network.backbone": "resnet3d_18",
        "start.weights": "r3d_18-kinetics400.pth",
        "input.resize_px": 36,
        "input.crop_px": 32,
        "input.clip_length": 4,
        "input.fps": "null",
        "train.epochs": 1,
        "train.lr": 1e-5,
    }
    overrides = [
        f"systems.residual3d.rows.resnet3d.{name}={value}" for name, value in changes.items()
    ]
    params = composed(tmp_path, "dataset=ucf101", "recipe=paper", "threads=1", *overrides)
    row = params.row("resnet3d_attention")  # follows the other row
    state, history = loop.fit(
        model=residual3d,
        row=row,
        row_name="resnet3d_attention",
        params=params,
        manifest=toy.manifest,
        split=toy.split,
        packs=toy.frames,
        pretrained=networks.pretrained_weights(row, tmp_path / "weights"),
        scratch_key="dry/kinetics",
        log=lambda metrics, step: None,
    )
    assert len(history) == 1
    assert np.isfinite(history[0].train_loss)
    deepest = "layer4.1.conv2.0.weight"
    assert not torch.equal(state[deepest], kinetics[deepest])
    torch.testing.assert_close(state[deepest], kinetics[deepest], atol=1e-3, rtol=0)
    assert state["fc.weight"].shape == (2, 512)
    with pytest.raises(InputError, match="flowsight import weights FILE"):
        networks.pretrained_weights(row, tmp_path / "elsewhere")
