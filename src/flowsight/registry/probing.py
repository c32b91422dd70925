"""Registered models at work, each in a process of its own with its own code: time and scores."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsight import files, running
from flowsight.errors import InputError
from flowsight.registry.evidence import Evidence
from flowsight.registry.store import Registry

if TYPE_CHECKING:
    import pandas as pd

_PROBE = str(Path(__file__).with_name("probe.py"))
_TIMEOUT_SEC = 3600.0
_SHORT = "short.avi"
_LIMITS = {"MAX_MB": "1e5", "MAX_SEC": "1e5", "MAX_FRAMES": "1e6", "MAX_SIDE": "16384"}
"""Of the server in the model: test clips are no strangers' videos."""


def latency(registry: Registry, model: Evidence, times: int) -> float | None:
    """Median seconds that a version takes for a short video; None where not asked for.

    Raises:
        InputError: it cannot be loaded, or fails on the video.
    """
    if not times:
        return None
    with tempfile.TemporaryDirectory(prefix="flowsight-probe-") as name:
        _draw(Path(name) / _SHORT)
        answer = _ask(registry, model, Path(name), times=times, videos=[_SHORT])
    return float(answer["latency_sec"])


def _draw(path: Path) -> None:
    """A short video, always the same: a square that moves over noise; 16 frames, 160 x 120 px."""
    import cv2
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
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
        clips: clip_id, path, sha256.
        root: the repository with the videos.

    Returns:
        Class names.

    Raises:
        InputError: a video is not here or is another one, or the model fails.
    """
    base = root / other.tags.get("data_path", "data/raw")
    for row in clips.itertuples():
        _check_video(base / str(row.path), str(row.sha256), str(row.clip_id), model, len(clips))
    videos = [str(path) for path in clips["path"]]
    return list(_ask(registry, model, base, times=0, videos=videos)["labels"])


def _check_video(path: Path, sha256: str, clip: str, model: Evidence, count: int) -> None:
    why = (
        f"version {model.version} of {model.model} has no predictions for {count} of the test clips"
    )
    if not path.is_file():
        raise InputError(
            f"{why}, and to make them it needs {path}, found no such file (clip {clip}); bring the "
            "data set with `dvc pull`"
        )
    if files.sha256(path) != sha256:
        raise InputError(f"{why}, and {path} is not the video that was listed (clip {clip})")


def _ask(
    registry: Registry, model: Evidence, root: Path, *, times: int, videos: list[str]
) -> dict[str, Any]:
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
            input=json.dumps({"uri": model.uri, "times": times, "videos": videos}),
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
