"""Registered models at work, each in a process of its own with its own code: time and answers."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsight import contract, files
from flowsight.errors import InputError
from flowsight.pipeline import running
from flowsight.registry.evidence import Evidence
from flowsight.registry.store import Registry

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_PROBE = str(Path(__file__).with_name("model_process.py"))
_TIMEOUT_SEC = 3600.0
_SHORT = {"video": "short.avi", "image": "small.png"}
_AT_ONCE = 8
"""Files in a request: a model refuses many."""
_LIMITS = {"MAX_MB": "1e5", "MAX_SEC": "1e5", "MAX_FRAMES": "1e6", "MAX_SIDE": "16384"}
"""Of the server in the model: test items are no strangers' files."""


def latency(registry: Registry, model: Evidence, times: int) -> float | None:
    """Median seconds that a version takes for a short video or a small image; None: not asked for.

    Raises:
        InputError: it cannot be loaded, or fails on it.
    """
    if not times:
        return None
    with tempfile.TemporaryDirectory(prefix="flowsight-probe-") as name:
        column = contract.find(model.tags.get("system", model.model)).INPUT
        _draw(Path(name) / _SHORT[column])
        answer = _ask(
            registry, model, Path(name), times=times, column=column, names=[_SHORT[column]],
            field="",
        )  # fmt: skip
    return float(answer["latency_sec"])


def _draw(path: Path) -> None:
    """Always the same: a square that moves over noise; 16 frames (or an image) of 160 x 120 px."""
    import cv2
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    if path.suffix == ".png":
        picture = cv2.blur(noise, (9, 9))
        picture[40:80, 60:100] = (30, 200, 90)
        cv2.imwrite(str(path), picture)
        return
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.0, (160, 120))
    for k in range(16):
        frame = cv2.blur(noise, (9, 9))
        frame[40:80, 10 + 6 * k : 50 + 6 * k] = (30, 200, 90)
        writer.write(frame)
    writer.release()


def score(
    registry: Registry,
    model: Evidence,
    other: Evidence,
    clips: pd.DataFrame,
    root: Path,
) -> list[str]:
    """Let a version predict clips that it has never scored.

    Args:
        registry: where it is.
        model: the version.
        other: the version whose data set holds the clips.
        clips: item_id, path, sha256.
        root: the repository with the videos.

    Returns:
        Class names.

    Raises:
        InputError: a video is not here or is another one, or the model fails.
    """
    base = root / other.tags.get("data_path", "data/raw")
    for row in clips.itertuples():
        check_file(base / str(row.path), str(row.sha256), str(row.item_id), model, len(clips))
    names = [str(path) for path in clips["path"]]
    return [str(label) for label in ask(registry, model, base, "video", names, "label")]


def check_file(path: Path, sha256: str, item: str, model: Evidence, count: int) -> None:
    """Refuse a file that is not here, or not the one that was listed.

    Args:
        path: of the file.
        sha256: of its content.
        item: whose it is.
        model: the version that needs it.
        count: of the items that this version has not scored.

    Raises:
        InputError: naming the file.
    """
    kind = model.kind.items
    why = (
        f"version {model.version} of {model.model} has no predictions for {count} of the test "
        f"{kind}"
    )
    if not path.is_file():
        raise InputError(
            f"{why}, and to make them it needs {path}, found no such file ({item}); bring the "
            "data set with `dvc pull`"
        )
    if files.sha256(path) != sha256:
        raise InputError(f"{why}, and {path} is not the file that was listed ({item})")


def ask(
    registry: Registry,
    model: Evidence,
    root: Path,
    column: str,
    names: Sequence[str],
    field: str,
    *,
    more: Mapping[str, Any] | None = None,
    at_once: int = _AT_ONCE,
) -> list[Any]:
    """What a version answers to files, asked in a process of its own.

    Args:
        registry: where it is.
        model: the version.
        root: folder of the files.
        column: of a request that names a file.
        names: below the folder.
        field: of an answer.
        more: other columns of a request.
        at_once: files in a request.

    Returns:
        The field of each answer.

    Raises:
        InputError: it cannot be loaded, or fails on one of them.
    """
    asked = {"times": 0, "column": column, "names": list(names), "field": field}
    answer = _ask(registry, model, root, **asked, more=dict(more or {}), at_once=at_once)
    return list(answer["values"])


def picture(text: str) -> np.ndarray:
    """(H, W) uint8 of a PNG as base64.

    Raises:
        InputError: none.
    """
    return decoded(base64.b64decode(text))


def decoded(content: bytes) -> np.ndarray:
    """(H, W) uint8 of a PNG.

    Raises:
        InputError: none.
    """
    import cv2
    import numpy as np

    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise InputError("expected a mask as PNG of the model, got something else")
    return np.asarray(image)


def _ask(registry: Registry, model: Evidence, root: Path, **asked: Any) -> dict[str, Any]:
    asked = {"more": {}, "at_once": _AT_ONCE, "uri": model.uri, **asked}
    with tempfile.TemporaryDirectory(prefix="flowsight-probe-") as name:
        out = Path(name) / "answer.json"
        variables = {
            "MLFLOW_TRACKING_URI": registry.uri,
            "MLFLOW_REGISTRY_URI": registry.uri,
            "FLOWSIGHT_SERVE_ROOT": str(root.resolve()),
            **{f"FLOWSIGHT_SERVE_{name}": value for name, value in _LIMITS.items()},
        }
        done = subprocess.run(
            [sys.executable, "-P", _PROBE, str(out)],
            input=json.dumps(asked),
            env={**running.environment(), **variables},
            cwd=name,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=_TIMEOUT_SEC,
            check=False,
        )
        if not out.is_file():
            last = (done.stderr.strip().splitlines() or [f"code {done.returncode}"])[-1]
            raise InputError(f"expected {model.uri} to load and predict, but it died: {last[:200]}")
        answer: dict[str, Any] = json.loads(out.read_text())
    if "error" in answer:
        raise InputError(f"expected {model.uri} to load and predict, got {answer['error']}")
    return answer
