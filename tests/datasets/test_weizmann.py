"""Weizmann: leave one person out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flowsight.classifiers import localization
from flowsight.datasets.clips.adapters import weizmann
from flowsight.datasets.clips.manifest import write_manifest
from flowsight.errors import InputError


@pytest.fixture
def raw(tmp_path: Path, write_video: Callable[..., Path]) -> Path:
    for action in ("run", "wave1"):
        for person in ("daria", "lena"):
            write_video(tmp_path / f"videos/{action}/{person}_{action}.avi")
    return tmp_path


def test_persons_are_groups_and_splits(raw: Path, write_video: Callable[..., Path]) -> None:
    (raw / "videos/run/lena_run.avi").rename(raw / "videos/run/lena_run1.avi")
    write_video(raw / "videos/run/lena_run2.avi")  # lena ran twice in the official archives
    found = weizmann.find_clips(raw)
    assert found[["clip_id", "group"]].values.tolist() == [
        ["run/daria_run", "daria"],
        ["run/lena_run1", "lena"],
        ["run/lena_run2", "lena"],
        ["wave1/daria_wave1", "daria"],
        ["wave1/lena_wave1", "lena"],
    ]
    official = weizmann.official_splits(raw, found)
    assert official.split_id.unique().tolist() == ["daria", "lena"]
    lena = official[official.split_id == "lena"].set_index("clip_id").subset
    assert lena["run/lena_run2"] == "test"
    assert lena["wave1/daria_wave1"] == "train"


@pytest.mark.parametrize(
    "path", ["run/bob_run.avi", "run/lena_jack.avi", "run/lena.avi", "hop/lena_hop.avi"]
)
def test_strangers_are_refused(raw: Path, path: str, write_video: Callable[..., Path]) -> None:
    write_video(raw / "videos" / path)
    with pytest.raises(InputError, match=r"expected"):
        weizmann.find_clips(raw)


def test_real_clips(shared_data: Path) -> None:
    found = weizmann.find_clips(shared_data / "weizmann")
    assert len(found) == 90
    assert found.label.value_counts().tolist() == [9] * 10
    official = weizmann.official_splits(shared_data / "weizmann", found)
    assert sorted(official.split_id.unique()) == sorted(weizmann.PERSONS)
    sizes = official.groupby(["split_id", "subset"]).size()
    assert sizes.xs("test", level=1).eq(10).all()
    assert sizes.xs("train", level=1).eq(80).all()


def test_manifest_says_that_its_masks_are_a_stand_in(raw: Path, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("manifest", "shards", "truth")]
    write_manifest(raw, *folders, adapter="weizmann", shards=[0], max_absent=1.0)
    assert localization.masks_by(folders[2]) == "background difference"
    index = localization.read_truth_index(folders[2])
    assert sorted(index) == ["run/daria_run", "run/lena_run", "wave1/daria_wave1",
                             "wave1/lena_wave1"]  # fmt: skip
    masks = localization.read_masks(index["run/daria_run"])
    assert masks is not None
    assert masks.ndim == 3


def test_drawn_masks_are_taken_where_they_are(raw: Path, tmp_path: Path) -> None:
    drawn = raw / "truth/run/daria_run.npz"
    drawn.parent.mkdir(parents=True)
    np.savez(drawn, masks=np.ones((2, 4, 4), bool))
    folders = [tmp_path / name for name in ("manifest", "shards", "truth")]
    write_manifest(raw, *folders, adapter="weizmann", shards=[0], max_absent=1.0)
    assert localization.masks_by(folders[2]) == localization.DRAWN
    assert list(localization.read_truth_index(folders[2])) == ["run/daria_run"]
