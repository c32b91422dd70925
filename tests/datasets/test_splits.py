"""Splits: groups never straddle, and what cannot be split is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from flowsight.datasets import tables
from flowsight.datasets.clips.adapters import hmdb51, ucf101, weizmann
from flowsight.datasets.clips.splits import cut_validation, write_splits
from flowsight.errors import InputError

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """make(train={"a": 3}, test={"a": 1}, shared=False): a manifest of one-clip groups."""

    def write(
        train: dict[str, int], test: dict[str, int], shared: bool = False, extra: str = ""
    ) -> Path:
        rows = []
        for subset, counts in (("train", train), ("test", test)):
            for label, count in counts.items():
                for i in range(count):
                    group = f"{subset}{i}" if shared else f"{label}/{subset}{i}"
                    rows.append((f"{label}/{subset}{i}", label, group, subset))
        clips = pd.DataFrame(rows, columns=["clip_id", "label", "group", "subset"])
        folder = tmp_path / "manifest"
        folder.mkdir(exist_ok=True)
        labels = sorted({**train, **test})
        classes = pd.DataFrame({"index": range(len(labels)), "label": labels})
        status = clips[["clip_id"]].assign(status="ok", reason="")
        status.loc[status.clip_id == extra, "status"] = "quarantined"
        clips.to_csv(folder / "clips.csv", index=False)
        classes.to_csv(folder / "classes.csv", index=False)
        status.to_csv(folder / "status.csv", index=False)
        clips.assign(split_id="1").to_csv(folder / "official_splits.csv", index=False)
        return folder

    return write


def cut(folder: Path, **options: object) -> pd.DataFrame:
    values: dict[str, object] = {"ids": ["1"], "val_share": 0.2, "seed": 1}
    out = folder.parent / "splits"
    write_splits(folder, folder / "status.csv", out, **(values | options))  # type: ignore[arg-type]
    return tables.read(out / "1.csv", tables.SPLIT)


def test_columns_order_and_share(make: Make) -> None:
    folder = make({"a": 10, "b": 5, "c": 1}, {"a": 2, "b": 2, "c": 2})
    table = cut(folder)
    assert (folder.parent / "splits/1.csv").read_text().startswith("clip_id,subset\na/test0,test\n")
    assert table.clip_id.tolist() == sorted(table.clip_id)
    label = table.clip_id.str[0]
    counts = table.groupby([label, "subset"]).size()
    assert counts["a", "val"] == 2
    assert counts["b", "val"] == 1
    assert ("c", "val") not in counts.index  # one training group gives none to validation
    assert (counts.xs("test", level="subset") == 2).all()


def test_no_validation_when_none_is_wanted(make: Make) -> None:
    assert "val" not in set(cut(make({"a": 9}, {"a": 1}), val_share=0.0).subset)


def test_shared_groups_are_the_same_in_all_classes(make: Make) -> None:
    train = dict.fromkeys("abcd", 8)
    table = cut(make(train, dict.fromkeys("abcd", 1), shared=True))
    val = table.clip_id[table.subset == "val"].str.split("/")
    assert len(val) == 8
    assert len({name for _, name in val}) == 2


def test_seed_and_split_decide_and_bytes_repeat(make: Make) -> None:
    folder = make({"a": 30, "b": 30}, {"a": 1, "b": 1})
    first, again, other = cut(folder), cut(folder), cut(folder, seed=2)
    assert first.equals(again)
    assert not first.equals(other)


def test_a_new_clip_moves_few_others(make: Make) -> None:
    before = cut(make({"a": 30, "b": 30}, {"a": 1, "b": 1}))
    after = cut(make({"a": 31, "b": 30}, {"a": 1, "b": 1}))
    both = before.merge(after, on="clip_id")
    assert (both.subset_x != both.subset_y).sum() <= 2
    assert both[both.clip_id.str.startswith("b")].eval("subset_x == subset_y").all()


def test_only_ok_clips(make: Make) -> None:
    table = cut(make({"a": 4}, {"a": 2}, extra="a/train3"))
    assert "a/train3" not in set(table.clip_id)
    assert len(table) == 5


def test_faults(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make({"a": 2}, {"a": 1, "b": 1})
    with pytest.raises(InputError, match=r"splits\.ids among 1 .*got '2'"):
        cut(folder, ids=["2"])
    with pytest.raises(InputError, match=r"none for 1 of 2 \(b\)"):
        cut(folder)
    assert not (folder.parent / "splits").exists()
    table = cut(folder, max_absent=1.0)
    assert not table.clip_id.str.startswith("b").any()
    assert "no training clip of b; 1 test clips" in capsys.readouterr().err
    with pytest.raises(InputError, match="expected test clips"):
        cut(make({"a": 2}, {}))
    with pytest.raises(InputError, match="found no such file"):
        cut(folder.parent / "nowhere")


@pytest.mark.parametrize("name", ["ucf101", "hmdb51", "weizmann"])
def test_official_splits_keep_groups_apart(shared_data: Path, name: str) -> None:
    """All official entries at once, as if every clip were there."""
    raw = shared_data / name
    if name == "weizmann":
        clips = weizmann.find_clips(raw)
        official = weizmann.official_splits(raw, clips).merge(clips)
    else:
        module = {"ucf101": ucf101, "hmdb51": hmdb51}[name]
        official = module.official_splits(raw, pd.DataFrame())
        parts = official.clip_id.str.split("/")
        official["label"] = [label for label, _ in parts]
        official["group"] = [
            f"{label}/{ucf101.group_number(stem)}"
            if name == "ucf101"
            else f"{label}/{hmdb51.source(stem, label)}"
            for label, stem in parts
        ]
    for split_id in sorted(official.split_id.unique())[:3]:
        rows = official[official.split_id == split_id]
        table = cut_validation(rows, val_share=0.2, key=f"1/{split_id}")
        assert (table.groupby("group").subset.nunique() == 1).all()
        sizes = table.groupby(["label", "subset"]).size().unstack()
        assert sizes.notna().all().all()
        share = sizes.val / (sizes.val + sizes.train)
        assert share.between(0.05, 0.4).all()
        assert abs(share.mean() - 0.2) < 0.06
