"""The parameters of two streams that see each other's attention."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from flowsight.classifiers.params import RowParams
from flowsight.params.promotion import PromotionParams
from flowsight.params.schema import check

SYSTEM = "two_stream"


@dataclass(frozen=True, kw_only=True)
class AttentionParams:
    """Maps, and the network that predicts them without a label."""

    hidden_channels: int
    epochs: int
    batch_size: int
    lr: float
    val_share: float
    """Share of the training clips that chooses the epoch (8:2 in the thesis)."""
    max_frames: int
    """Frames of each training clip, evenly drawn, that the attention network learns from."""
    num_pictures: int
    """Clips drawn as pictures beside the maps."""

    def __post_init__(self) -> None:
        for name in ("hidden_channels", "epochs", "batch_size", "max_frames"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1")
        check(0 < self.val_share < 1, "val_share must be in (0, 1)")


@dataclass(frozen=True, kw_only=True)
class AlternationParams:
    """Two rows that see each other's maps, trained in turn."""

    rounds: int = 4
    """How often the maps are drawn anew; the epochs are shared out among the rounds."""

    def __post_init__(self) -> None:
        check(self.rounds >= 1, "rounds must be at least 1")


@dataclass(frozen=True, kw_only=True)
class FusionParams:
    """Two rows whose probabilities are averaged."""

    spatial: str
    temporal: str
    method: str | None = None
    """Its name in the printed tables."""


@dataclass(frozen=True, kw_only=True)
class EvaluateParams:
    """From predictions to numbers."""

    fusions: dict[str, FusionParams]
    """Name -> its two rows; the first is the baseline the others are compared with."""
    headline: str | None = None
    """The fusion that the report is about, and the others are its controls; null: the last."""
    fusion_steps: int
    """Steps of the grid on which the fusion weight is chosen, on validation data."""
    bootstrap_samples: int
    """Clip resamples behind a confidence interval; 0: none."""
    confidence: float
    """Level of the interval."""
    num_overlays: int
    """Test clips drawn with their maps."""
    localization_frames: int
    """Frames of a clip, evenly drawn, that are scored against the true masks."""

    def __post_init__(self) -> None:
        check(len(self.fusions) > 0, "fusions must name at least one pair of rows")
        known = self.headline is None or self.headline in self.fusions
        check(known, f"headline names no fusion: {self.headline!r}")
        check(self.fusion_steps >= 1, "fusion_steps must be at least 1")
        check(self.bootstrap_samples >= 0, "bootstrap_samples must not be negative")
        check(0 < self.confidence < 1, "confidence must be in (0, 1)")
        check(self.localization_frames >= 1, "localization_frames must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Block:
    """`systems.two_stream`."""

    rows: dict[str, RowParams]
    """Phase 1 sees the constant map; phase 2 goes on from it with the other stream's maps."""
    attention: AttentionParams
    alternation: AlternationParams = field(default_factory=AlternationParams)
    evaluate: EvaluateParams
    serve: str | None = None
    """The fusion that is registered and served; null: by the system's own rule (its README)."""
    promote: PromotionParams = field(default_factory=PromotionParams)

    def __post_init__(self) -> None:
        _check_rows(self.rows, self.alternation.rounds)
        for method, fusion in self.evaluate.fusions.items():
            for row in (fusion.spatial, fusion.temporal):
                check(row in self.rows, f"evaluate.fusions.{method} names no row: {row!r}")
                scored = self.rows[row].start.explains is None
                check(
                    scored, f"evaluate.fusions.{method}: {row} only makes maps, it scores no clip"
                )


def _check_rows(rows: dict[str, RowParams], rounds: int) -> None:
    for name, row in rows.items():
        for key in ("init", "maps"):
            other = getattr(row.start, key)
            check(
                other is None or other in rows, f"rows.{name}.start.{key} names no row: {other!r}"
            )
        if row.start.explains is not None:
            _check_explains(name, row, rows)
        if row.start.init is not None:
            check(
                rows[row.start.init].start.explains is None,
                f"rows.{name}.start.init: {row.start.init} trains nothing",
            )
            same = rows[row.start.init].network.backbone == row.network.backbone
            check(same, f"rows.{name}.start.init has another backbone than rows.{row.start.init}")
        if row.start.maps is not None:
            other = rows[row.start.maps]
            in_turn = (
                other.start.maps == name and row.start.init is None and other.start.init is None
            )
            check(
                other.start.maps is None or in_turn,
                f"rows.{name}.start.maps must name a phase-1 row, or one without `init` whose maps "
                f"are {name}'s (the two are trained in turn)",
            )
            check(
                in_turn or row.start.init is not None,
                f"rows.{name} goes on from no row; name one in `start.init`",
            )
            check(
                not in_turn or row.start.map_control is None,
                f"rows.{name}: no map_control where two rows are trained in turn",
            )
            check(
                not in_turn or row.train.epochs >= rounds,
                f"rows.{name}.train.epochs: expected at least an epoch for each of "
                f"alternation.rounds={rounds}, got {row.train.epochs}",
            )


def _check_explains(name: str, row: RowParams, rows: dict[str, RowParams]) -> None:
    assert row.start.explains is not None
    for key in ("row", "through"):
        other = getattr(row.start.explains, key)
        if other is None:
            continue
        check(other in rows, f"rows.{name}.start.explains.{key} names no row: {other!r}")
        named = rows[other]
        phase1 = (
            named.start.init is None and named.start.maps is None and named.start.explains is None
        )
        check(phase1, f"rows.{name}.start.explains.{key} must name a phase-1 row, got {other}")
    explained = rows[row.start.explains.row]
    network = replace(row.network, target_layers=explained.network.target_layers)
    same = (network, row.input) == (explained.network, explained.input)
    check(
        same,
        f"rows.{name} must be as rows.{row.start.explains.row}, whose network it explains, but for "
        f"network.target_layers",
    )
    if row.start.explains.through is not None:
        through = rows[row.start.explains.through]
        other_stream = through.input.modality != row.input.modality
        check(
            other_stream, f"rows.{name}.start.explains.through must name a row of the other stream"
        )
        check(
            row.start.explains.key_every == 1, f"rows.{name}: no key frames where maps are learnt"
        )
