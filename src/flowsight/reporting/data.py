"""What the page shows of the data set, its validation and the parameters."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from flowsight.evaluation.predictions import read_table, records
from flowsight.params.config import Params
from flowsight.reporting import formats

SUBJECTS = ("manifest", "clips", "splits")
MAX_LISTED = 100
"""Clips listed by name; the rest are counted (all stand in status.csv)."""


def content(manifest: Path, validation: Path) -> dict[str, Any]:
    """Clips per class, clips left out with their reasons, and validation results.

    Args:
        manifest: folder of `clips.csv`.
        validation: folder of `<subject>/report.json` and `clips/status.csv`.
    """
    clips = read_table(manifest / "clips.csv", ("clip_id", "label", "group", "num_frames"))
    status = read_table(validation / "clips" / "status.csv", ("clip_id", "status", "reason"))
    by_status = {str(k): int(v) for k, v in status["status"].value_counts().items()}
    ok = set(status.loc[status["status"] == "ok", "clip_id"])
    lost = status[status["status"] != "ok"].sort_values(
        ["status", "clip_id"], ascending=[False, True]
    )
    return {
        "classes": _classes(clips[clips["clip_id"].isin(ok)]),
        "num_clips": by_status.get("ok", 0),
        "num_groups": int(clips["group"].nunique()),
        "num_frames": int(clips["num_frames"].sum()),
        "quarantined": by_status.get("quarantined", 0),
        "absent": by_status.get("absent", 0),
        "lost": records(lost.head(MAX_LISTED)),
        "unlisted": max(len(lost) - MAX_LISTED, 0),
        "checks": [check for s in SUBJECTS for check in _checks(validation / s / "report.json", s)],
    }


def _classes(clips: pd.DataFrame) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for label, own in clips.groupby("label", sort=True):
        frames = own["num_frames"]
        rows.append({"label": label, "clips": len(own), "groups": own["group"].nunique(),
                     "frames": int(frames.sum()), "shortest": int(frames.min()),
                     "longest": int(frames.max())})  # fmt: skip
    most = int(clips["label"].value_counts().max()) if rows else 1
    return [row | {"share": row["clips"] / most} for row in rows]


def _checks(path: Path, subject: str) -> list[dict[str, Any]]:
    """Expectations of one validation report; a subject without a report has none."""
    if not path.is_file():
        return []
    report = json.loads(path.read_text(encoding="utf-8"))
    return [{"subject": subject} | dict(check) for check in report.get("checks", [])]


def parameter_tables(params: Params) -> dict[str, Any]:
    """All parameters: the networks' rows side by side, and every other block as a list.

    Returns:
        `rows`: names of the rows; `table`: (dotted name, value per row, do they differ);
        `blocks`: block name -> list of (dotted name, value).
    """
    values = dataclasses.asdict(params)
    values.pop("instances", None)
    rows = [block.pop("rows") for block in values["systems"].values()]
    flat = {name: dict(_flat(row)) for own in rows for name, row in own.items()}
    keys = dict.fromkeys(key for row in flat.values() for key in row)
    table = []
    for key in keys:
        cells = [row.get(key, "") for row in flat.values()]
        table.append((key, cells, len(set(cells)) > 1))
    blocks: dict[str, list[tuple[str, str]]] = {"general": []}
    for name, value in values.items():
        if name == "sample" and params.dataset.name != "sample":
            continue
        if isinstance(value, Mapping):
            blocks[name] = _flat(value)
        else:
            blocks["general"].append((name, formats.value_text(value)))
    return {"rows": list(flat), "table": table, "blocks": blocks}


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", formats.value_text(value)))
    return pairs
