"""One self-contained HTML page of all that came out: no scripts, no outside files, no clocks.

Each system makes its part (`write_part`: what its `report.content` reads, shown by its
`report.html.j2`); the page (`write_page`) puts the parts of the systems that run together, then the
data, then the parameters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowsight import contract
from flowsight.contract import Folders
from flowsight.errors import InputError
from flowsight.files import atomic_dir, write_json
from flowsight.params.config import Params
from flowsight.reporting import data, formats

PART, TOLD = "part.html", "part.json"


def write_part(system: str, params: Params, folders: Folders, out: Path) -> None:
    """Write a system's part of the page, and what the page says of it (`PART`, `TOLD`).

    Args:
        system: its name.
        params: all parameters.
        folders: what its `report.content` reads; `results` is `results/<system>`.
        out: folder to replace.

    Raises:
        InputError: a table that must be there is missing or has other columns.
    """
    metrics = folders["results"] / "metrics.json"
    if not metrics.is_file():
        raise InputError(f"expected {metrics}, found no such file; run the system's evaluation")
    content = contract.part(system, "report").content(params, folders)
    template = _environment().get_template(f"systems/{system}/report.html.j2")
    html = template.render(
        system=content, split_ids=params.splits.ids, alone=len(params.systems) == 1
    )
    told = {"id": content["id"], "title": content["title"]}
    told |= {name: bool(content[name]) for name in ("overlays", "curves")}
    with atomic_dir(out) as folder:
        (folder / PART).write_text(html, encoding="utf-8", newline="\n")
        write_json(told, folder / TOLD)


def write_page(
    *,
    parts: Path,
    params: Params,
    out: Path,
    manifest: Path | None = None,
    validation: Path | None = None,
) -> None:
    """Write `out/index.html`.

    Args:
        parts: folder of `<system>/part.html` and `part.json`.
        params: all parameters; the parts of their systems are shown, in their order.
        out: folder to replace.
        manifest: folder of the clips' `clips.csv` and `classes.csv`; None: no system sees clips.
        validation: folder of `<subject>/report.json` and `clips/status.csv`; None as above.

    Raises:
        InputError: a part is missing.
    """
    clips = manifest is not None and validation is not None
    page = _environment().get_template("reporting/report.html.j2").render(
        dataset=params.dataset.name,
        recipe=params.recipe,
        split_ids=params.splits.ids,
        systems=[_part(parts / name) for name in params.systems],
        data=data.content(manifest, validation) if clips else None,  # type: ignore[arg-type]
        parameters=data.parameter_tables(params),
    )  # fmt: skip
    with atomic_dir(out) as folder:
        (folder / "index.html").write_text(page, encoding="utf-8", newline="\n")


def _part(folder: Path) -> Mapping[str, Any]:
    from markupsafe import Markup

    if not (folder / TOLD).is_file():
        raise InputError(f"expected {folder / TOLD}, found no such file; run the stage `report`")
    told = json.loads((folder / TOLD).read_text(encoding="utf-8"))
    return {**told, "html": Markup((folder / PART).read_text(encoding="utf-8"))}


def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("flowsight", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": formats.percent,
        "pct": formats.percent_sign,
        "points": formats.points,
        "number": formats.number,
        "plural": formats.plural,
    }
    return environment
