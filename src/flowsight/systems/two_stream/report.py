"""What the page shows of the two-stream system, read from `results/two_stream`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from flowsight.classifiers.localization import Shown, masks_of
from flowsight.classifiers.params import RowParams
from flowsight.contract import Folders
from flowsight.evaluation.predictions import read_classes, read_table, records
from flowsight.metrics import classification
from flowsight.params.config import Params
from flowsight.reporting import formats
from flowsight.reporting.charts import confusion_chart
from flowsight.reporting.curves import row_charts
from flowsight.systems.two_stream import schedules
from flowsight.systems.two_stream.evaluate import shown_maps, system_fusions
from flowsight.systems.two_stream.params import SYSTEM
from flowsight.systems.two_stream.scoring import STREAMS

_MEASURES = (
    ("pointing_game", "pointing game", "the map's strongest point lies on the actor"),
    ("energy_in_mask", "energy inside", "share of the map's energy that lies on the actor"),
    ("iou", "IoU", "overlap of the map above half its maximum with the actor"),
)


def content(params: Params, folders: Folders) -> dict[str, Any]:
    """Everything its template names.

    Args:
        params: all parameters.
        folders: `results` (`results/two_stream`), `history` (of `<row>-<split>.csv`),
            `manifest`.
    """
    results, history = folders["results"], folders["history"]
    metrics = json.loads((results / "metrics.json").read_text(encoding="utf-8"))
    classes = read_classes(folders["manifest"])
    names = fusion_names(params)
    fusions = [_fusion(name, label, metrics) for name, label in names.items()]
    best = next(
        (f for f in fusions if f["name"] == params.system(SYSTEM).evaluate.headline), fusions[-1]
    )
    differences = read_table(results / "comparisons.csv", ("method", "baseline", "difference"))
    return {
        "id": SYSTEM,
        "title": "Two-stream networks with cross attention",
        "fusions": fusions,
        "best": best,
        "baseline": fusions[0],
        "gains": _gains(differences, best["name"], fusions[0]["name"]),
        "controls": [
            {**fusion, "gains": _gains(differences, best["name"], fusion["name"])}
            for fusion in fusions[1:]
            if fusion is not best
        ],
        "fusing": _fusing(differences, best),
        "chance": 1 / len(classes),
        "num_classes": len(classes),
        "num_test_clips": int(metrics["num_test_clips"]),
        "confidence": params.system(SYSTEM).evaluate.confidence,
        "weights": _weights(results, names),
        "per_split": _per_split(results, names),
        "paper": _paper(results),
        "localization": _localization(results, metrics, params),
        "overlays": _overlays(results),
        "confusions": _confusions(results, names, classes),
        "curves": _curves(history, params),
        "schedules": schedules.content(history, params),
    }


def fusion_names(params: Params) -> dict[str, str]:
    """What people call each fusion: with or without attention, the name added if that repeats."""
    fusions = system_fusions(params)
    labels = {n: _label(params.row(p.spatial), params.row(p.temporal)) for n, p in fusions.items()}
    seen = list(labels.values())
    return {n: f"{v} ({n})" if seen.count(v) > 1 else v for n, v in labels.items()}


def _label(spatial: RowParams, temporal: RowParams) -> str:
    controls = {spatial.start.map_control, temporal.start.map_control}
    own = [
        row.start.maps is not None and row.start.map_control is None for row in (spatial, temporal)
    ]
    if all(own):
        return "With attention"
    if any(own):
        return f"Attention to {'spatial' if own[0] else 'temporal'} only"
    if len(controls) == 1 and None not in controls:
        return f"Control, {controls.pop()} maps"
    return "Without attention"


def _fusion(name: str, label: str, metrics: Mapping[str, float]) -> dict[str, Any]:
    streams = {}
    for stream in STREAMS:
        key = f"{name}/{stream}/"
        own = {k.removeprefix(key): v for k, v in metrics.items() if k.startswith(key)}
        streams[stream] = dict.fromkeys(("top1_std", "top1_low", "top1_high")) | own
    return {"name": name, "label": label, "streams": streams}


def _difference(table: pd.DataFrame, method: str, baseline: str) -> dict[str, Any] | None:
    found = table[(table["method"] == method) & (table["baseline"] == baseline)]
    if found.empty:
        return None
    row = {str(k): v for k, v in found.iloc[0].items()}
    ends = pd.to_numeric(pd.Series([row["low"], row["high"]]), errors="coerce").to_numpy()
    row["low"], row["high"] = (None if np.isnan(e) else float(e) for e in ends)
    row["beyond_chance"] = row["low"] is not None and (row["low"] > 0 or row["high"] < 0)
    return row


def _gains(table: pd.DataFrame, name: str, base: str) -> dict[str, dict[str, Any]]:
    """A fusion against another, per stream; empty where they were not compared."""
    found = {s: _difference(table, f"{name}/{s}", f"{base}/{s}") for s in STREAMS}
    return {stream: row for stream, row in found.items() if row is not None}


def _fusing(table: pd.DataFrame, fusion: dict[str, Any]) -> dict[str, Any] | None:
    """The fused result against the better of its two streams."""
    better = max(STREAMS[:2], key=lambda stream: fusion["streams"][stream]["top1"])
    row = _difference(table, f"{fusion['name']}/fused", f"{fusion['name']}/{better}")
    return row and row | {"stream": better}


def _weights(results: Path, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Fusion weights and where they come from, mean over splits."""
    table = read_table(results / "per_split.csv", ("fusion", "stream", "weight", "weight_source"))
    table = table[table["stream"] == "spatial"]
    return [
        {
            "label": names[str(name)],
            "spatial": float(rows["weight"].mean()),
            "chosen": bool((rows["weight_source"] == "validation").all()),
            "num_clips": int(rows["num_val_clips"].sum()),
        }
        for name, rows in table.groupby("fusion", sort=False)
    ]


def _per_split(results: Path, names: Mapping[str, str]) -> list[dict[str, Any]]:
    table = read_table(results / "per_split.csv", ("fusion", "split_id", "stream", "top1"))
    table["label"] = table["fusion"].map(dict(names))
    return records(table)


def _paper(results: Path) -> dict[str, Any]:
    """Rows with the number of their footnote, the footnotes, and whether any may be compared."""
    table = read_table(results / "paper_table.csv", ("value", "ours", "comparable", "why"))
    table["ours"] = pd.to_numeric(table["ours"], errors="coerce")
    notes: dict[str, int] = {}
    rows = []
    for row in records(table):
        comparable = str(row["comparable"]) == "True"
        note = None if comparable else notes.setdefault(row["why"], len(notes) + 1)
        ours = None if pd.isna(row["ours"]) else row["ours"]
        rows.append(row | {"comparable": comparable, "note": note, "ours": ours})
    return {"rows": rows, "notes": list(notes), "any": any(r["comparable"] for r in rows)}


def _localization(results: Path, metrics: Mapping[str, float], params: Params) -> dict[str, Any]:
    table = read_table(results / "localization.csv", ("row", "subset", "pointing_game", "chance"))
    scored = shown_maps(system_fusions(params), params)
    maps = []
    for row, shown in scored.items():
        key = f"localization/{row}"
        if f"{key}/chance" not in metrics:
            continue
        measures = [(t, hint, metrics[f"{key}/{name}"]) for name, t, hint in _MEASURES]
        maps.append({"row": row, "measures": measures, "chance": metrics[f"{key}/chance"],
                     "stream": _stream(shown.row, params), "how": _how(row, shown, params),
                     "tile": row in _headline_maps(params)})  # fmt: skip
    columns = ["num_clips", *(name for name, _, _ in _MEASURES), "chance"]
    grouped = table.groupby(["row", "subset"], as_index=False, sort=False)[columns]
    means = grouped.mean() if len(table) else table
    rows = [row | {"source": _source(row, scored, params)} for row in records(means)]
    return {"maps": maps, "rows": rows, "masks": masks_of(results)}


def _source(scores: dict[str, Any], shown: Mapping[str, Shown], params: Params) -> str:
    """What made the maps of a subset."""
    maps = shown[scores["row"]]
    explains = params.row(maps.row).start.explains
    if maps.control == "constant":
        return "no network"
    learnt = explains is not None and explains.through is not None
    if scores["subset"] == "train" and not learnt:
        return "Grad-CAM, label known"
    return "attention network"


def _headline_maps(params: Params) -> list[str | None]:
    """Rows whose maps the fusion sees that the page is about."""
    fusions = system_fusions(params)
    best = fusions.get(params.system(SYSTEM).evaluate.headline or "", list(fusions.values())[-1])
    return [params.row(row).start.maps for row in (best.spatial, best.temporal)]


def _how(name: str, shown: Shown, params: Params) -> str:
    """Where maps come from, in a few words."""
    if shown.control is not None:
        what = "the constant" if shown.control == "constant" else f"{shown.row}'s, of other clips"
        return f"{what}, as {name} sees them"
    row = params.row(shown.row)
    layers = " + ".join(row.network.target_layers)
    explains = row.start.explains
    if explains is None:
        return f"Grad-CAM of {layers}"
    if explains.through is not None:
        return f"{explains.row}'s {layers}, learnt through {explains.through}'s loss"
    every = f", every {explains.key_every} frames" if explains.key_every > 1 else ""
    return f"Grad-CAM of {explains.row}'s {layers}{every}"


def _stream(row: str, params: Params) -> str:
    return "spatial" if params.row(row).input.modality == "rgb" else "temporal"


def _overlays(results: Path) -> list[dict[str, Any]]:
    table = read_table(results / "overlays" / "index.csv", ("picture", "clip_id", "frame"))
    found = []
    for row in records(table):
        path = results / "overlays" / row["picture"]
        width, height = formats.picture_size(path)
        found.append(row | {"uri": formats.data_uri(path), "width": width, "height": height})
    return found


def _confusions(
    results: Path, names: Mapping[str, str], classes: list[str]
) -> list[dict[str, Any]]:
    index = {name: i for i, name in enumerate(classes)}
    groups = []
    for fusion, label in names.items():
        charts = []
        for stream in STREAMS:
            path = results / "confusion" / f"{fusion}-{stream}.csv"
            pairs = read_table(path, ("actual", "predicted")).astype(str)
            actual, predicted = (pairs[c].map(index).to_numpy(np.int64) for c in pairs)
            counts = classification.confusion_matrix(actual, predicted, len(classes))
            title = f"{label}: {stream}"
            chart = confusion_chart(counts, classes, title=title, style=f"cell {stream}")
            charts.append({"stream": stream, "svg": Markup(chart)})
        groups.append({"label": label, "charts": charts})
    return groups


def _curves(history: Path, params: Params) -> list[dict[str, Any]]:
    """Loss and accuracy of each row, one pair of lines per split; rows without history left out."""
    cards = []
    for name, row in params.system(SYSTEM).rows.items():
        stream = _stream(name, params)
        charts = row_charts(history, name, params.splits.ids, stream)
        if not charts:
            continue
        cards.append(
            {
                "row": name,
                "stream": stream,
                "phase": f"goes on from {row.start.init}" if row.start.init else "first phase",
                "input": f"{'RGB' if stream == 'spatial' else 'flow'} + "
                + (
                    f"maps of {row.start.maps}"
                    if row.start.maps
                    else f"maps at {row.input.map_value:g}"
                ),
                "charts": charts,
            }
        )
    return cards
