"""Rows x splits as DVC's `foreach` walks them: asked of each system, put together here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flowsight import contract
from flowsight.errors import InputError

COUNTED = {
    "items": {"reads": 1, "params": 2},
    "train": {"reads": 5, "params": 1},
    "explain": {"reads": 6, "params": 3},
    "refine": {"reads": 6, "params": 1},
    "alternate": {"reads": 7, "params": 2},
    "spatial_attention": {"reads": 3, "params": 0},
    "predict": {"reads": 4, "params": 2},
    "peers": {"reads": 1, "params": 2},
    "evaluate": {"reads": 8, "params": 3},
    "report": {"reads": 3, "params": 2},
}
"""How many `${item.reads[0]}`, `${item.reads[1]}` ... `dvc.yaml` counts out of a verb, those of its
longest item, for DVC takes no list from parameters. Shorter ones are filled up with one that the
stage has anyway."""


def instances(params: Mapping[str, Any]) -> dict[str, Any]:
    """What `params.instances` is.

    Args:
        params: all other parameters, plain values.

    Returns:
        Verb -> key -> what `dvc.yaml` interpolates: what the system's `instances` says, with
        `folders` as options of a command, `reads` (what they name and `also`) and `params`.
        `page` is one stage, and what it reads of the clips, where any system sees clips; `verbs`
        names for each verb every system that has it, also those that do not run.

    Raises:
        InputError: two systems make instances of one verb with the same key, or an item has more
            than `dvc.yaml` counts out.
    """
    verbs: dict[str, list[str]] = {}
    for name in contract.names():
        for verb in contract.part(name, "instances").VERBS:
            verbs.setdefault(verb, []).append(name)
    found: dict[str, Any] = {verb: {} for verb in verbs}
    for name, block in params["systems"].items():
        own = contract.part(name, "instances").instances(block, params)
        for verb, items in own.items():
            for twice in sorted(found[verb].keys() & items.keys()):
                other = found[verb][twice]["system"]
                raise InputError(
                    f"expected row names of its own in {name}, got that of {twice} in {other}"
                )
            for key, item in items.items():
                found[verb][key] = _filled(item, name, verb, key)
    found["page"] = _page(params, found["report"].values())
    return {**found, "verbs": verbs}


def _filled(item: Mapping[str, Any], system: str, verb: str, key: str) -> dict[str, Any]:
    """An item as `dvc.yaml` counts it out."""
    counts = COUNTED.get(verb, {})
    lists = {
        "reads": [*item["folders"].values(), *item.get("also", ())],
        "params": list(item.get("params", ())),
    }
    for kind, values in lists.items():
        missing = counts.get(kind, 0) - len(values)
        if missing < 0:  # no dependency, and nobody would see it
            raise InputError(
                f"expected at most {counts.get(kind, 0)} {kind} of {verb}@{key} ({system}), got "
                f"{', '.join(values)}; count them out in dvc.yaml and in pipeline.instances.COUNTED"
            )
        values += [lists["reads"][0] if kind == "reads" else "threads"] * missing
    own = {name: value for name, value in item.items() if name != "also"}
    return {**own, "system": system, "folders": options(item["folders"]), **lists}


def _page(params: Mapping[str, Any], parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The page shows the clips where a part does; else it reads the parts only (named again)."""
    name = params["dataset"]["name"]
    read = {"manifest": f"data/manifests/{name}", "validation": f"data/validation/{name}"}
    if not any(read["manifest"] in part["reads"] for part in parts):
        return {"folders": "", "reads": ["parts", "parts"]}
    return {"folders": options(read), "reads": list(read.values())}


def options(folders: Mapping[str, str]) -> str:
    """Folders as a command line takes them."""
    return " ".join(f"--{name.replace('_', '-')} {path}" for name, path in folders.items())


def weights(start: Mapping[str, Any]) -> list[str]:
    """The file that a row starts from, if it does."""
    name = start.get("weights")
    return [] if name in (None, "imagenet") else [f"data/weights/{name}"]
