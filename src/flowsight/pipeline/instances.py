"""Rows x splits as DVC's `foreach` walks them: asked of each system, put together here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flowsight import contract
from flowsight.errors import InputError


def instances(params: Mapping[str, Any]) -> dict[str, Any]:
    """What `params.instances` is.

    Args:
        params: all other parameters, plain values.

    Returns:
        Stage group -> key -> what `dvc.yaml` interpolates; `page` is one stage, and what it reads
        of the clips, where any system sees clips.

    Raises:
        InputError: two systems make instances of one group with the same key.
    """
    found: dict[str, Any] = {
        group: {} for name in contract.names() for group in contract.part(name, "instances").GROUPS
    }
    found["report"] = {}
    for name, block in params["systems"].items():
        own = contract.part(name, "instances")
        for group, items in own.instances(block, params).items():
            for twice in sorted(found[group].keys() & items.keys()):
                other = found[group][twice]["system"]
                raise InputError(
                    f"expected row names of its own in {name}, got that of {twice} in {other}"
                )
            found[group] |= items
        found["report"][name] = own.report_item(params)
    found["page"] = _page(params, found["report"].values())
    return found


def _page(params: Mapping[str, Any], parts: Iterable[Mapping[str, str]]) -> dict[str, Any]:
    """The page shows the clips where a part does; else it reads the parts only (named again)."""
    name = params["dataset"]["name"]
    read = {"manifest": f"data/manifests/{name}", "validation": f"data/validation/{name}"}
    if not any(part["manifest"] == read["manifest"] for part in parts):
        return {"folders": "", "reads": ["parts", "parts"]}
    return {"folders": options(read), "reads": list(read.values())}


def options(folders: Mapping[str, str]) -> str:
    """Folders as a command line takes them."""
    return " ".join(f"--{name} {folder}" for name, folder in folders.items())


def weights_file(start: Mapping[str, Any]) -> str:
    """The file below `data/weights` that a row starts from; one that always exists for none."""
    weights = start.get("weights")
    return "README.md" if weights in (None, "imagenet") else str(weights)
