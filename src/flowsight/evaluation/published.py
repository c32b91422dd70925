"""Printed results of the papers, as data: `published.csv` in the folder of the system.

One row a number, to stand beside ours in `paper_table.csv` and in the report. Values as printed:
accuracy in %; recall, precision and F in 0..1; times in the paper's own unit. The system's README
names the source.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("table", "dataset", "split", "item", "method", "metric", "value")


def read(system: str) -> pd.DataFrame:
    """One paper's printed numbers.

    Args:
        system: whose paper.

    Returns:
        Columns `table, dataset, split, item, method, metric, value`; all text but `value`, which
        is as printed (accuracy in %). `split` is `not_stated` where the paper does not say.
    """
    import pandas as pd

    with (
        resources.files(f"flowsight.systems.{system}")
        .joinpath("published.csv")
        .open(encoding="utf-8") as file
    ):
        text = dict.fromkeys(COLUMNS[:-1], str)
        return pd.read_csv(file, dtype=text, keep_default_na=False)
