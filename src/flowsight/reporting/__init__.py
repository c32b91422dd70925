"""One self-contained HTML page of all that came out: no scripts, no outside files, no clocks.

The page has one part per system (an entry of `_SYSTEMS`: a function that reads
`results/<system>` and a template that shows it), then the data, then the parameters. A system
without results is not shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowsight.files import atomic_dir
from flowsight.params.config import Params
from flowsight.reporting import data, formats
from flowsight.systems.background import report
from flowsight.systems.residual3d import report as residual3d
from flowsight.systems.saliency import report as saliency
from flowsight.systems.two_stream import report as two_stream

_SYSTEMS = (
    (two_stream.SYSTEM, two_stream.content, "two_stream/report.html.j2"),
    (residual3d.SYSTEM, residual3d.content, "residual3d/report.html.j2"),
    (report.SYSTEM, report.content, "background/report.html.j2"),
    (saliency.SYSTEM, saliency.content, "saliency/report.html.j2"),
)


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
        {"template": template} | content(results / name, history, manifest, params)
        for name, content, template in _SYSTEMS
        if name in params.systems and (results / name / "metrics.json").is_file()
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
