"""Printed results of the papers, as data; README.md names the sources."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("table", "dataset", "split", "item", "method", "metric", "value")


def read(name: str) -> pd.DataFrame:
    """One paper's printed numbers.

    Args:
        name: `two_stream_attention`, `residual_attention_3d`, `background_rnn` or `saliency_fcn`.

    Returns:
        Columns `table, dataset, split, item, method, metric, value`; all text but `value`, which
        is as printed (accuracy in %). `split` is `not_stated` where the paper does not say.
    """
    import pandas as pd

    with resources.files(__name__).joinpath(f"{name}.csv").open(encoding="utf-8") as file:
        text = dict.fromkeys(COLUMNS[:-1], str)
        return pd.read_csv(file, dtype=text, keep_default_na=False)
