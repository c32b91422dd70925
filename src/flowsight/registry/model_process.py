"""Run by its path, in a process of its own: load a registered model, time it, let it predict files.

The model brings its code, which may be of another commit than ours; nothing of this package may
be loaded before it. Reads one JSON object from stdin: uri, column (of a request that names a file),
names (below FLOWSIGHT_SERVE_ROOT), more (other columns of a request), field (of an answer; empty:
none is wanted), times and at_once; writes one to the file named by the first argument: values (the
field of each answer), latency_sec (median), or error.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Do it."""
    asked = json.load(sys.stdin)
    out = Path(sys.argv[1])
    try:
        answer = work(asked)
    except Exception as error:  # the model's code may raise anything
        answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    out.write_text(json.dumps(answer))


def work(asked: dict[str, Any]) -> dict[str, Any]:
    """Load, time, predict."""
    import mlflow
    import pandas as pd

    folder = mlflow.artifacts.download_artifacts(artifact_uri=asked["uri"], dst_path=".")
    model = mlflow.pyfunc.load_model(folder)
    answer: dict[str, Any] = {}
    values: list[Any] = []
    for start in range(0, len(asked["names"]), asked["at_once"]):
        names = asked["names"][start : start + asked["at_once"]]
        piece = pd.DataFrame({asked["column"]: names}).assign(**asked["more"])
        values += _values(model.predict(piece), asked["field"])
    answer["values"] = values
    taken = []
    for _ in range(asked["times"]):  # the first time, above, costs more
        start_sec = time.perf_counter()
        model.predict(piece)
        taken.append(time.perf_counter() - start_sec)
    if taken:
        answer["latency_sec"] = statistics.median(taken)
    return answer


def _values(found: Any, field: str) -> list[Any]:
    rows = found.to_dict("records") if hasattr(found, "to_dict") else found
    wrong = [row["error"] for row in rows if isinstance(row.get("error"), str)]
    if wrong:
        raise ValueError(wrong[0])
    return [row[field] for row in rows] if field else []


if __name__ == "__main__":
    main()
