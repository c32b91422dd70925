"""Predictions of the sample's clips equal the numbers of a finished run of the pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flowsight.errors import InputError
from flowsight.serving import bundle
from flowsight.serving.prediction import predict_videos
from flowsight.serving.result import Prediction

from ..test_end_to_end import FEW, ROOT, clone, flowsight

pytestmark = [pytest.mark.slow, pytest.mark.pipeline]

MOST_CLIPS = 12


def is_finished(root: Path, scratch: Path) -> bool:
    """Whether checkpoints and results of this tree are whole and the ones `dvc.lock` knows."""
    try:
        described = bundle.write_bundle("two_stream", scratch, root=root)
    except InputError:
        return False
    return (root / "data/raw" / described["dataset"]).is_dir()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This tree if its run is finished, else a clone where the smoke recipe ran."""
    if is_finished(ROOT, tmp_path_factory.mktemp("scratch") / "bundle"):
        return ROOT
    root = clone(tmp_path_factory.mktemp("clone"))
    composed = flowsight(root, "compose", "recipe=smoke", *FEW)
    assert composed.returncode == 0, composed.stderr
    done = flowsight(root, "repro", "evaluate@two_stream")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return root


def test_equal_to_the_runs_predictions(finished: Path, tmp_path: Path) -> None:
    described = bundle.write_bundle("two_stream", tmp_path / "bundle", root=finished)
    system = bundle.load_bundle(tmp_path / "bundle", device="cpu")
    dataset, split = described["dataset"], described["split"]
    table = pd.read_parquet(finished / "results/two_stream/predictions.parquet")
    table = table[
        (table["fusion"] == described["fusion"]["name"]) & (table["split_id"].astype(str) == split)
    ].set_index(["stream", "clip_id"])
    manifest = pd.read_csv(finished / f"data/manifests/{dataset}/clips.csv").set_index("clip_id")
    clip_ids = sorted({clip_id for _, clip_id in table.index})
    clip_ids = clip_ids[:: max(1, len(clip_ids) // MOST_CLIPS)]
    videos = [finished / "data/raw" / dataset / manifest.loc[c, "path"] for c in clip_ids]
    columns = [f"prob_{name}" for name in system.classes]
    for clip_id, found in zip(clip_ids, predict_videos(system, videos), strict=True):
        assert isinstance(found, Prediction), found
        for stream in ("spatial", "temporal", "fused"):
            expected = table.loc[(stream, clip_id), columns].to_numpy(np.float64)
            np.testing.assert_allclose(found.probs[stream], expected, rtol=0, atol=1e-5)
        for stream, row in described["streams"].items():
            path = finished / f"predictions/two_stream/{dataset}/{row}-{split}.parquet"
            logits = pd.read_parquet(path).set_index("clip_id").loc[clip_id]
            expected = logits[[f"logit_{name}" for name in system.classes]].to_numpy(np.float64)
            np.testing.assert_allclose(found.logits[stream], expected, rtol=0, atol=1e-5)
