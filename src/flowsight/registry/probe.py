"""Run by its path, in a process of its own: load a registered model, time it, score videos.

The model brings its code, which may be of another commit than ours; nothing of this package may
be loaded before it. Reads one JSON object from stdin: uri, videos (below FLOWSIGHT_SERVE_ROOT) and
times; writes one to the file named by the first argument: labels, latency_sec (median), or error.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

_AT_ONCE = 8  # videos in a request: a model refuses many


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
    """Load, time, score."""
    import mlflow
    import pandas as pd

    folder = mlflow.artifacts.download_artifacts(artifact_uri=asked["uri"], dst_path=".")
    model = mlflow.pyfunc.load_model(folder)
    answer: dict[str, Any] = {}
    labels: list[str] = []
    for start in range(0, len(asked["videos"]), _AT_ONCE):
        piece = pd.DataFrame({"video": asked["videos"][start : start + _AT_ONCE]})
        labels += _labels(model.predict(piece))
    answer["labels"] = labels
    taken = []
    for _ in range(asked["times"]):  # the first time, above, costs more
        start_sec = time.perf_counter()
        model.predict(piece)
        taken.append(time.perf_counter() - start_sec)
    if taken:
        answer["latency_sec"] = statistics.median(taken)
    return answer


def _labels(found: Any) -> list[str]:
    rows = found.to_dict("records") if hasattr(found, "to_dict") else found
    wrong = [row["error"] for row in rows if isinstance(row.get("error"), str)]
    if wrong:
        raise ValueError(wrong[0])
    return [str(row["label"]) for row in rows]


if __name__ == "__main__":
    main()
