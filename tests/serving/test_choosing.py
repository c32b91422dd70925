"""Which fusion and which network over clips are served where more of them are declared."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from flowsight.classifiers.params import RowParams
from flowsight.errors import InputError
from flowsight.params import config
from flowsight.params.config import Params
from flowsight.pipeline import composing
from flowsight.systems.background import serve
from flowsight.systems.residual3d import serve as residual3d
from flowsight.systems.saliency import serve as saliency
from flowsight.systems.two_stream import choosing

ROOT = Path(__file__).resolve().parents[2]
STUDIES = sorted(path.stem for path in (ROOT / "conf/study").glob("*.yaml"))


def composed(folder: Path, *overrides: str) -> Params:
    (folder / "conf").symlink_to(ROOT / "conf")
    return composing.compose(list(overrides), root=folder)


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_does_not_change_what_is_served(tmp_path: Path, study: str) -> None:
    params = composed(tmp_path, f"study={study}")
    name, fusion = choosing.served_fusion(params)
    assert (name, fusion.spatial) == ("attention", "spatial_attended")
    # the first of each kind, also of slimmed rows and of those with a median; a study's come behind
    assert (saliency.served_row(params), serve.served_row(params)) == (
        *("fcn_f", "recurrent_median"),
    )
    assert "attention-temporal" in choosing.checkpoints(params, fusion, "1")
    assert residual3d.served_row(params) == "resnet3d_attention"


def test_other_families_and_flow_stand_behind_the_papers_network(tmp_path: Path) -> None:
    params = composed(tmp_path, "recipe=paper")
    rows = params.system("residual3d").rows
    assert rows["resnet3d_attention_flow"].network.attention and rows["densenet3d_attention"]
    assert residual3d.served_row(params) == "resnet3d_attention"


def with_rows(**rows: RowParams) -> Params:
    params = config.load(ROOT / "params.yaml")
    return with_block(params, "residual3d", rows=rows)


def with_block(params: Params, system: str, **changes: Any) -> Params:
    block = dataclasses.replace(params.system(system), **changes)
    return dataclasses.replace(params, systems={**params.systems, system: block})


def test_what_is_served_of_other_rows() -> None:
    rows = config.load(ROOT / "params.yaml").system("residual3d").rows
    plain, attended = rows["resnet3d"], rows["resnet3d_attention"]
    flow = dataclasses.replace(
        attended, input=dataclasses.replace(attended.input, modality="flow", stack_length=1)
    )
    assert residual3d.served_row(with_rows(a=plain, b=plain)) == "a"
    assert residual3d.served_row(with_rows(a=plain, b=flow)) == "b"
    assert residual3d.served_row(with_rows(a=flow, b=attended, c=attended)) == "b"
    with pytest.raises(InputError, match=r"a row of residual3d with input\.clip_length, got none"):
        residual3d.served_row(with_rows())


def test_what_is_served_can_be_named(tmp_path: Path) -> None:
    named = {
        "two_stream": "attention",
        "residual3d": "resnet3d",
        "saliency": "fcn",
        "background": "recurrent",
    }
    params = composed(tmp_path, *(f"systems.{system}.serve={row}" for system, row in named.items()))
    assert choosing.served_fusion(params)[0] == "attention"
    assert residual3d.served_row(params) == "resnet3d"
    assert saliency.served_row(params) == "fcn"
    assert serve.served_row(params) == "recurrent"
    wrong = with_block(params, "two_stream", serve="two_stream")
    with pytest.raises(
        InputError, match=r"two_stream\.serve as one of attention, got 'two_stream'"
    ):
        choosing.served_fusion(wrong)
    wrong = with_block(params, "background", serve="fcn")
    with pytest.raises(
        InputError, match=r"background\.serve as one of recurrent, recurrent_median"
    ):
        serve.served_row(wrong)
