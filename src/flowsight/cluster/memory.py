"""The micro-batch that a stage of a run can bear, remembered from try to try and host to host."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from flowsight import files
from flowsight.cluster.workplace import Workplace
from flowsight.pipeline import dvc_yaml

_PROPOSED = re.compile(r"FLOWSIGHT_MICRO_BATCH=(\d+)")


def remembered(place: Workplace, run_id: str, stage: str) -> int | None:
    """Micro-batch for the next try: as remembered, else by environment; None: the stage's own."""
    try:
        return int(json.loads(_note(place, run_id, stage).read_text())["micro_batch"])
    except (OSError, ValueError, KeyError, TypeError):
        given = os.environ.get("FLOWSIGHT_MICRO_BATCH", "")
        return int(given) if given.isdecimal() and int(given) > 0 else None


def halve(
    place: Workplace,
    run_id: str,
    stage: dvc_yaml.Stage,
    tree: Path,
    *,
    used: int | None,
    message: str,
) -> int:
    """Remember half of the micro-batch that did not fit.

    Args:
        place, run_id: whose memory.
        stage: the one that failed.
        tree: its work tree; its parameters know the batch.
        used: the micro-batch that did not fit; None: the stage's own.
        message: of the failure; it may propose a number.
    """
    proposed = _PROPOSED.search(message)
    size = int(proposed[1]) if proposed else max(1, (used or _own(stage, tree)) // 2)
    files.write_json({"micro_batch": size}, _note(place, run_id, stage.name))
    return size


def forget(place: Workplace, run_id: str, stage: str) -> None:
    """Remove the note of a finished stage."""
    path = _note(place, run_id, stage)
    path.unlink(missing_ok=True)
    if path.parent.is_dir() and not any(path.parent.iterdir()):
        path.parent.rmdir()


def _own(stage: dvc_yaml.Stage, tree: Path) -> int:
    params: Any = dvc_yaml.read_yaml(tree / "params.yaml")
    try:
        row = params["instances"][stage.group][stage.key]["row"]
        rows = {k: v for block in params["systems"].values() for k, v in block["rows"].items()}
        return int(rows[row]["train"]["batch_size"])
    except (KeyError, TypeError, ValueError):
        return 16


def _note(place: Workplace, run_id: str, stage: str) -> Path:
    return place.scratch / run_id / f"{stage}.json"
