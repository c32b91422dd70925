"""The printed table beside ours: when a pair may be compared."""

import dataclasses
from types import SimpleNamespace

import pandas as pd

from flowsight.systems.two_stream import paper

from .conftest import changed, started

World = SimpleNamespace


def paper_rows(world: World, counts: dict[str, int], **params: object) -> pd.DataFrame:
    scores = pd.DataFrame(
        [
            {"fusion": f, "split_id": s, "stream": stream, "top1": top1}
            for f, top1 in (("two_stream", 0.5), ("attention", 0.75))
            for s in ("1", "2")
            for stream in ("spatial", "temporal", "fused")
        ]
    )
    return paper.paper_table(scores, dataclasses.replace(world.params, **params), counts)


def test_paper_table_on_the_sample_is_never_comparable(world_template: World) -> None:
    table = paper_rows(world_template, {"ok": 32})
    assert not table["comparable"].any()
    assert table["why"].str.len().min() > 0
    attention = table[table["method"] == "Spatio-Temporal Attention"]
    assert (attention["ours"] == 75.0).all()
    assert table.loc[table["method"] == "TSN", "ours"].isna().all()


def test_paper_table_is_comparable_only_for_the_papers_own_set_up(world_template: World) -> None:
    rows = {
        name: dataclasses.replace(
            started(row, weights="w.pth"),
            network=dataclasses.replace(row.network, backbone="inception_v3"),
        )
        for name, row in world_template.params.system("two_stream").rows.items()
    }
    systems = changed(world_template.params, "two_stream", rows=rows).systems
    dataset = dataclasses.replace(world_template.params.dataset, name="hmdb51")
    full = {"systems": systems, "dataset": dataset, "recipe": "paper"}
    table = paper_rows(world_template, {"ok": 6766}, **full)
    good = table[table["comparable"]]
    assert set(good["method"]) == {"Spatio-Temporal Attention"}
    assert set(good["dataset"]) == {"HMDB-51"} and set(good["table"]) == {"4.1"}
    missing = paper_rows(world_template, {"ok": 6765, "absent": 1}, **full)
    assert not missing["comparable"].any()
    small = paper_rows(world_template, {"ok": 6766}, **full | {"recipe": "small"})
    assert not small["comparable"].any()
