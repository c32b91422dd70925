"""Its stage instances: rows x splits, by how rows name each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowsight.classifiers import instances as of_clips
from flowsight.systems.two_stream.params import SYSTEM

VERBS = ("train", "explain", "refine", "alternate", "predict", "evaluate", "report")


def instances(block: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Verb -> `<row>-<split_id>`, or the system's name -> what is read.

    `train` is phase 1, `explain` the maps of its networks (whose row it is, or another row that
    explains it), `refine` phase 2, `alternate` two rows in turn, under the name of the one that
    sees frames.
    """
    found: dict[str, dict[str, Any]] = {verb: {} for verb in VERBS}
    for name in block["rows"]:
        for split_id in params["splits"]["ids"]:
            for verb, item in _of_row(name, split_id, block["rows"], params).items():
                found[verb][f"{name}-{split_id}"] = item
    maps = "attention" if found["explain"] or found["alternate"] else None
    found["evaluate"][SYSTEM] = of_clips.evaluation(SYSTEM, maps, params)
    found["report"][SYSTEM] = of_clips.report(SYSTEM, params)
    return found


def _of_row(
    name: str, split_id: str, rows: Mapping[str, Any], params: Mapping[str, Any]
) -> dict[str, Any]:
    """Verb -> item of a row and split."""
    row, start = rows[name], rows[name]["start"]
    item = of_clips.item(name, row, split_id, params)
    if start.get("explains"):
        return {"explain": _explaining_another(item, rows, params)}
    maps = start["maps"]
    if maps is None:
        found = {"train": of_clips.training(item, row), "predict": item}
        if name in _explained(rows):
            found["explain"] = _explaining(item, name)
        return found
    seen = _with(item, maps=f"attention/{SYSTEM}/{item['data']}/{maps}-{split_id}")
    if not _in_turn(name, rows):
        begun = _with(seen, start=f"checkpoints/{item['data']}/{start['init']}-{split_id}")
        return {"refine": of_clips.training(begun, row), "predict": seen}
    if row["input"]["modality"] == "rgb":
        return {"alternate": _alternating(item, maps, rows, params), "predict": seen}
    return {"predict": seen}


def _in_turn(name: str, rows: Mapping[str, Any]) -> bool:
    """Whether a row and the one whose maps it sees see each other's."""
    maps = rows[name]["start"]["maps"]
    return maps is not None and rows[maps]["start"]["maps"] == name


def _explained(rows: Mapping[str, Any]) -> set[str]:
    """Rows whose maps another one sees, after its own training."""
    return {r["start"]["maps"] for n, r in rows.items() if not _in_turn(n, rows)} - {None}


def _with(item: Mapping[str, Any], **folders: str) -> dict[str, Any]:
    return {**item, "folders": item["folders"] | folders}


def _explaining(item: Mapping[str, Any], of: str) -> dict[str, Any]:
    """Maps of the network of a row, with the parameters of how they are learnt."""
    checkpoint = f"checkpoints/{item['data']}/{of}-{item['split']}"
    return {**_with(item, checkpoint=checkpoint), "params": [f"systems.{SYSTEM}.attention"]}


def _explaining_another(
    item: Mapping[str, Any], rows: Mapping[str, Any], params: Mapping[str, Any]
) -> dict[str, Any]:
    """A row without a network of its own: it reads the checkpoint of the row it explains."""
    explains = rows[item["row"]]["start"]["explains"]
    found = _explaining(item, explains["row"])
    through = explains.get("through")
    if through is None:
        return _with(found, flow=f"data/flow/{item['data']}")
    learnt = _with(
        found,
        through_packs=of_clips.packs(rows[through], params),
        through_checkpoint=f"checkpoints/{item['data']}/{through}-{item['split']}",
    )
    block = f"systems.{SYSTEM}.rows.{through}"
    more = [f"{block}.network", f"{block}.input"]
    return {**learnt, "params": [*found["params"], *more]}


def _alternating(
    item: Mapping[str, Any], other: str, rows: Mapping[str, Any], params: Mapping[str, Any]
) -> dict[str, Any]:
    """Two rows at once: what both read, and the other one's outputs."""
    both = of_clips.training(_with(item, other_packs=of_clips.packs(rows[other], params)),
                             rows[item["row"]])  # fmt: skip
    also = [*both["also"], *of_clips.training(item, rows[other])["also"]]
    return {
        **both,
        "also": list(dict.fromkeys(also)),
        "params": [f"systems.{SYSTEM}.{part}" for part in ("alternation", "attention")],
        "other": other,
        "other_key": f"{other}-{item['split']}",
    }
