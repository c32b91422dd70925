"""The parameters of 3D networks with residual attention."""

from __future__ import annotations

from dataclasses import dataclass, field

from flowsight.classifiers.params import EvaluateParams, RowParams
from flowsight.params.promotion import PromotionParams
from flowsight.params.schema import check

SYSTEM = "residual3d"


@dataclass(frozen=True, kw_only=True)
class Block:
    """`systems.residual3d`."""

    rows: dict[str, RowParams]
    evaluate: EvaluateParams
    serve: str | None = None
    """The row that is registered and served; null: by the system's own rule (its README)."""
    promote: PromotionParams = field(default_factory=PromotionParams)

    def __post_init__(self) -> None:
        for name, row in self.rows.items():
            clips = row.input.clip_length is not None
            check(clips, f"rows.{name}.input.clip_length must say how long a clip is")
            own = row.start.init is None and row.start.maps is None and row.start.explains is None
            check(own, f"rows.{name}.start: only weights are known here")
