"""Run by its path, in a process of its own: load a registered model, time it, score videos.

The model brings its code, which may be of another commit than ours; nothing of this package may
be loaded before it. Reads one JSON object from stdin: uri, times, videos; writes one to the file
named by the first argument: latency_sec, labels or error.
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
    if asked["times"]:
        example = model.input_example
        model.predict(example)  # the first time costs more
        answer["latency_sec"] = statistics.median(_seconds(model, example, asked["times"]))
    if asked["videos"]:
        found = model.predict(pd.DataFrame({asked["column"]: asked["videos"]}))
        answer["labels"] = [str(value) for value in pd.DataFrame(found)["label"]]
    return answer


def _seconds(model: Any, example: Any, times: int) -> list[float]:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        model.predict(example)
        taken.append(time.perf_counter() - start)
    return taken


if __name__ == "__main__":
    main()
