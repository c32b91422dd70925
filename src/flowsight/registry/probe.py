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

    folder = mlflow.artifacts.download_artifacts(artifact_uri=asked["uri"])
    model = mlflow.pyfunc.load_model(folder)
    answer: dict[str, Any] = {}
    videos = pd.DataFrame({"video": asked["videos"]})
    answer["labels"] = _labels(model.predict(videos))  # the first time costs more
    taken = []
    for _ in range(asked["times"]):
        start = time.perf_counter()
        model.predict(videos)
        taken.append(time.perf_counter() - start)
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
