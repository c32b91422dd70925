"""Its stage instances: rows x splits, by how rows name each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowsight.classifiers import instances as of_clips
from flowsight.systems.two_stream.params import SYSTEM

GROUPS = ("train", "attention", "explain", "learn_attention", "train_attended", "alternate",
          "predict", "predict_attended", "evaluate")  # fmt: skip


def instances(block: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Group -> `<row>-<split_id>` -> what `dvc.yaml` interpolates.

    `train` and `attention` are phase 1, `explain` and `learn_attention` rows that make other maps
    of a phase-1 network, `train_attended` is phase 2, `alternate` two rows in turn, under the name
    of the one that sees frames.
    """
    rows = block["rows"]
    found: dict[str, Any] = {group: {} for group in GROUPS}
    starts = {name: row["start"] for name, row in rows.items()}
    in_turn = {n for n, s in starts.items() if s["maps"] and starts[s["maps"]]["maps"] == n}
    explained = {s["maps"] for s in starts.values() if s["maps"] is not None} - in_turn
    for name, row in rows.items():
        for split_id in params["splits"]["ids"]:
            key, item = f"{name}-{split_id}", of_clips.item(SYSTEM, name, row, split_id)
            if row["start"].get("explains"):
                _add_explaining(found, key, item, rows)
                continue
            _add_training(found, key, item, rows, in_turn)
            if name in explained:
                found["attention"][key] = item
    found["evaluate"][SYSTEM] = of_clips.evaluate_item(SYSTEM, "attention", params)
    return found


def _add_training(
    found: dict[str, Any],
    key: str,
    item: dict[str, str],
    rows: Mapping[str, Any],
    in_turn: set[str],
) -> None:
    name, split_id = item["row"], item["split"]
    row = rows[name]
    maps = row["start"]["maps"]
    if maps is None:
        found["train"][key] = found["predict"][key] = item
        return
    item = {**item, "maps": f"{maps}-{split_id}"}
    found["predict_attended"][key] = item
    if name not in in_turn:
        found["train_attended"][key] = {**item, "init": f"{row['start']['init']}-{split_id}"}
    elif row["input"]["modality"] == "rgb":
        other = of_clips.item(SYSTEM, maps, rows[maps], split_id)
        found["alternate"][key] = {**item, **{f"other_{k}": v for k, v in other.items()}}


def _add_explaining(
    found: dict[str, Any], key: str, item: dict[str, str], rows: Mapping[str, Any]
) -> None:
    """A row without a network of its own: it reads the checkpoint of the row it explains."""
    explains = rows[item["row"]]["start"]["explains"]
    item = {**item, "of": f"{explains['row']}-{item['split']}"}
    through = explains.get("through")
    if through is None:
        found["explain"][key] = item
        return
    other = of_clips.item(SYSTEM, through, rows[through], item["split"])
    more = {f"through_{k}": v for k, v in other.items()}
    found["learn_attention"][key] = {**item, **more, "through": f"{through}-{item['split']}"}


def report_item(params: Mapping[str, Any]) -> dict[str, str]:
    """What its part of the page reads."""
    return of_clips.report_item(params)
