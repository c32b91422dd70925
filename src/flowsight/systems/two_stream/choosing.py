"""What of two streams is served: which fusion, of which rows, from which checkpoints."""

from __future__ import annotations

from flowsight.classifiers.params import RowParams
from flowsight.contract import Source, chosen_row
from flowsight.errors import InputError
from flowsight.params.config import Params
from flowsight.serving import origin
from flowsight.serving.origin import Weight
from flowsight.systems.two_stream.params import SYSTEM, FusionParams

STREAMS = ("spatial", "temporal")


def served_fusion(params: Params) -> tuple[str, FusionParams]:
    """The fusion that is served: the system's first one whose rows use the other stream's maps.

    Passed over are controls, rows that see other maps than phase 1's (`explains`), and rows that
    were trained in turns, which have no phase 1. `systems.two_stream.serve` names another of them.

    Raises:
        InputError: there is none, or none of that name.
    """
    found = [
        (name, pair)
        for name, pair in params.system(SYSTEM).evaluate.fusions.items()
        for rows in [(params.row(pair.spatial), params.row(pair.temporal))]
        if all(_is_attended(row, params) for row in rows)
    ]
    if not found:
        raise InputError(
            f"expected a fusion of two rows of {SYSTEM} with `maps` in evaluate.fusions, got none"
        )
    if params.system(SYSTEM).serve is not None:
        name = chosen_row(params.system(SYSTEM).serve, dict(found), SYSTEM)
        return name, dict(found)[name]
    return found[0]  # a study's stand behind


def _is_attended(row: RowParams, params: Params) -> bool:
    if row.start.maps is None or row.start.map_control is not None or row.start.init is None:
        return False
    return params.row(row.start.maps).start.explains is None


def rows_of(fusion: FusionParams, params: Params) -> list[str]:
    """Rows of both phases that a fusion needs."""
    attended = [fusion.spatial, fusion.temporal]
    return [str(params.row(row).start.init) for row in attended] + attended


def checkpoints(params: Params, fusion: FusionParams, split: str) -> dict[str, str]:
    """File's name in the bundle -> the checkpoint's folder, relative to the repository.

    Raises:
        InputError: the fusion's rows do not use each other's maps.
    """
    first, second = (params.row(getattr(fusion, stream)) for stream in STREAMS)
    if (first.start.maps, second.start.maps) != (second.start.init, first.start.init):
        raise InputError(
            f"expected rows {fusion.spatial} and {fusion.temporal} to use the maps of each "
            f"other's first phase ({second.start.init}, {first.start.init}), got "
            f"{first.start.maps}, {second.start.maps}"
        )
    base = f"checkpoints/{params.dataset.name}"
    phase1 = [str(first.start.init), str(second.start.init)]
    names = [*phase1, *(f"attention-{row}" for row in phase1), fusion.spatial, fusion.temporal]
    return {name: f"{base}/{name}-{split}" for name in names}


def weight(source: Source, system: str, fusion: str, split: str, params: Params) -> Weight:
    """The fusion's weight of the spatial stream, as evaluation chose it on validation clips.

    Raises:
        InputError: no results, or others than the lock knows.
    """
    results = f"results/{system}"
    if source.lock is not None:
        origin.check_fresh(source.root, results, source.lock)
    table = source.root / results / "per_split.csv"
    return origin.read_weight(table, fusion, split, params.system(SYSTEM).evaluate.fusion_steps)
