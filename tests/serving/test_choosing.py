"""Which fusion is served where a study has declared more of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowsight import composing
from flowsight.serving import choosing

ROOT = Path(__file__).resolve().parents[2]


STUDIES = sorted(path.stem for path in (ROOT / "conf/study").glob("*.yaml"))


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_does_not_change_what_is_served(tmp_path: Path, study: str) -> None:
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    params = composing.compose([f"study={study}"], root=tmp_path)
    name, fusion = choosing.served_fusion(params, "two_stream")
    assert (name, fusion.spatial) == ("attention", "spatial_attended")
    assert "attention-temporal" in choosing.checkpoints(params, fusion, "1")
