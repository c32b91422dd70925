"""One self-contained HTML page of all that came out: no scripts, no outside files, no clocks.

The page has one part per system (its `report.content`, which reads `results/<system>`, and its
`report.html.j2`), then the data, then the parameters. A system without results is not shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowsight import contract
from flowsight.files import atomic_dir
from flowsight.params.config import Params
from flowsight.reporting import data, formats


def write_report(
    *,
    results: Path,
    history: Path,
    validation: Path,
    manifest: Path,
    params: Params,
    out: Path,
) -> None:
    """Write `out/index.html`.

    Args:
        results: folder of `<system>/metrics.json` and what stands beside it.
        history: folder of `<row>-<split>.csv`.
        validation: folder of `<subject>/report.json` and `clips/status.csv`.
        manifest: folder of `clips.csv` and `classes.csv`.
        params: all parameters.
        out: folder to replace.

    Raises:
        InputError: a table that must be there is missing or has other columns.
    """
    systems = [
        {"template": f"{name}/report.html.j2"}
        | contract.part(name, "report").content(results / name, history, manifest, params)
        for name in params.systems
        if (results / name / "metrics.json").is_file()
    ]
    page = _render(
        {
            "dataset": params.dataset.name,
            "recipe": params.recipe,
            "split_ids": params.splits.ids,
            "systems": systems,
            "data": data.content(manifest, validation),
            "parameters": data.parameter_tables(params),
        }
    )
    with atomic_dir(out) as folder:
        (folder / "index.html").write_text(page, encoding="utf-8", newline="\n")


def _render(values: Mapping[str, Any]) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [
                jinja2.PackageLoader("flowsight", "reporting"),
                jinja2.PackageLoader("flowsight", "systems"),
            ]
        ),
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
    return environment.get_template("report.html.j2").render(**values)
