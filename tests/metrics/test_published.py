"""The printed tables as package data."""

import filecmp
from pathlib import Path

import pytest

from flowsight import contract
from flowsight.evaluation import published


@pytest.mark.parametrize("name", ["two_stream", "residual3d", "background", "saliency"])
def test_every_table_has_the_columns_and_numbers(name: str) -> None:
    table = published.read(name)
    assert tuple(table.columns) == published.COLUMNS
    assert table["value"].notna().all() and len(table) > 5


def test_first_printed_number() -> None:
    row = published.read("two_stream").iloc[8]
    assert (row["table"], row["dataset"], row["split"]) == ("4.1", "HMDB-51", "1")
    assert (row["item"], row["value"]) == ("fusion", 71.2)


def test_equals_the_handed_over_tables(shared_data) -> None:  # type: ignore[no-untyped-def]
    handed = {"two_stream": "two_stream_attention", "residual3d": "residual_attention_3d",
              "background": "background_rnn", "saliency": "saliency_fcn"}  # fmt: skip
    for system, paper in handed.items():
        source = shared_data.parent / f"papers/published/{paper}.csv"
        ours = Path(contract.__file__).parent / f"systems/{system}/published.csv"
        assert filecmp.cmp(source, ours, shallow=False), system
