"""The parameters: `params.yaml` as frozen dataclasses, checked once, here.

`params.yaml` is composed by Hydra from `conf/` (see `docs/parameters.md`), so explanations stand
there and here, not in the composed file. Stage scripts call `load()` and hand plain values on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flowsight.batches.params import InputParams
from flowsight.classifiers.params import NetworkParams, RowParams, TestParams
from flowsight.errors import InputError
from flowsight.params import schema
from flowsight.params.data import (
    DatasetParams,
    FlowParams,
    FramesParams,
    SampleParams,
    SplitsParams,
)
from flowsight.params.schema import check
from flowsight.params.training import TrainParams
from flowsight.systems.background.params import ScenesParams
from flowsight.systems.saliency.params import ImagesParams

__all__ = [
    "AttentionParams",
    "DatasetParams",
    "EvaluateParams",
    "FlowParams",
    "FramesParams",
    "FusionParams",
    "InputParams",
    "NetworkParams",
    "Params",
    "PromotionParams",
    "RowParams",
    "SampleParams",
    "ServeParams",
    "SplitsParams",
    "TestParams",
    "TrainParams",
    "load",
]

BACKGROUND = "background"
"""The system of `scenes`."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


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
class PromotionParams:
    """What a model must show before it serves; a clean data gate and no leakage always count."""

    min_accuracy: float = 0.5
    """Of systems over clips: share of its test clips that the challenger gets right."""
    min_f_beta: float = 0.5
    """Of `saliency`: mean F-measure (beta^2 = 0.3) of its test images' argmax maps."""
    min_f_measure: float = 0.5
    """Of `background`: F-measure of the test frames, the mean over videos."""
    max_loss: float = 0.02
    """What it may lose of that measure against the champion, on the same items ..."""
    probability: float = 0.95
    """... with this probability at least, by a paired bootstrap."""
    bootstrap_samples: int = 2000
    block_frames: int = 10
    """Of `background`: consecutive test frames of a video that are drawn together at least, for
    neighbours say nearly the same."""
    max_latency_sec: float | None = 30.0
    """Median for a short video, on the machine that promotes; null: not measured."""
    max_size_mb: float | None = 600.0
    """Of the model's weights, in 10^6 bytes; null: any."""

    def __post_init__(self) -> None:
        for name in (
            *("min_accuracy", "min_f_beta", "min_f_measure"),
            *("max_loss", "probability"),
        ):
            check(0 <= getattr(self, name) <= 1, f"{name} must be in [0, 1]")
        check(self.block_frames >= 1, "block_frames must be at least 1")
        check(self.bootstrap_samples >= 100, "bootstrap_samples must be at least 100")
        for name in ("max_latency_sec", "max_size_mb"):
            value = getattr(self, name)
            check(value is None or value > 0, f"{name} must be positive or null")


@dataclass(frozen=True, kw_only=True)
class ServeParams:
    """What of each system is registered and served; null: by the system's own rule, which follows
    from the parameters too and never from test results (`docs/serving.md`)."""

    two_stream: str | None = None
    """A fusion of `evaluate.fusions`."""
    residual3d: str | None = None
    """A row."""
    saliency: str | None = None
    """A row of `images.rows`."""
    background: str | None = None
    """A row of `scenes.rows`."""


@dataclass(frozen=True, kw_only=True)
class Params:
    """All of `params.yaml`."""

    seed: int
    threads: int
    """CPU threads of torch: training is exact to the bit for the same number."""
    recipe: str
    """Name of the group of numbers in use: sample, smoke, small or paper."""
    dataset: DatasetParams
    sample: SampleParams
    shards: tuple[int, ...]
    frames: FramesParams
    flow: FlowParams
    splits: SplitsParams
    systems: tuple[str, ...]
    """Whose rows run."""
    rows: dict[str, RowParams]
    scenes: ScenesParams | None = None
    """The system `background`; its rows are networks of another kind and stand in here."""
    attention: AttentionParams
    alternation: AlternationParams = field(default_factory=AlternationParams)
    evaluate: EvaluateParams
    promotion: PromotionParams = field(default_factory=PromotionParams)
    serve: ServeParams = field(default_factory=ServeParams)
    images: ImagesParams | None = None
    """The system `saliency`: pairs, plans and rows of its own."""
    instances: dict[str, Any] = field(default_factory=dict)
    """Rows x splits as DVC's `foreach` walks them; made by the resolver in `conf/`."""
    scene_instances: dict[str, Any] = field(default_factory=dict)
    """The same for `scenes`."""

    def __post_init__(self) -> None:
        check(self.threads >= 1, "threads must be at least 1")
        check(len(self.shards) > 0, "shards must name at least one shard")
        check(len(set(self.shards)) == len(self.shards), "shards repeat")
        for name in self.rows:
            check(bool(_NAME.fullmatch(name)), f"row name {name!r} is not a file name")
        _check_rows(self.rows, self.alternation.rounds)
        self._check_systems()
        for method, fusion in self.evaluate.fusions.items():
            for row in (fusion.spatial, fusion.temporal):
                check(row in self.rows, f"evaluate.fusions.{method} names no row: {row!r}")
                scored = self.rows[row].explains is None
                check(
                    scored, f"evaluate.fusions.{method}: {row} only makes maps, it scores no clip"
                )

    def _check_systems(self) -> None:
        others = [BACKGROUND] if self.scenes is not None else []
        others += ["saliency"] if self.images is not None else []
        named = list(dict.fromkeys([*(row.system for row in self.rows.values()), *others]))
        known = ", ".join(named)
        check(len(self.systems) > 0, f"expected systems of {known}, got none")
        for name in self.systems:
            check(name in named, f"expected systems of {known}, got {name!r}")
        check(len(set(self.systems)) == len(self.systems), "systems repeat")

    def saliency(self) -> ImagesParams:
        """The parameters of the system `saliency`.

        Raises:
            InputError: there are none.
        """
        if self.images is None:
            raise InputError("expected `images` in the parameters, got none; compose them anew")
        return self.images

    def rows_of(self, system: str) -> dict[str, RowParams]:
        """Rows of a system, in their order."""
        return {name: row for name, row in self.rows.items() if row.system == system}

    def scenes_block(self) -> ScenesParams:
        """The block `scenes`.

        Raises:
            InputError: the parameters have none.
        """
        if self.scenes is None:
            raise InputError(
                "expected a block `scenes` in the parameters, found none; compose them"
            )
        return self.scenes

    def row(self, name: str) -> RowParams:
        """One row by name.

        Raises:
            InputError: there is no such row.
        """
        if name not in self.rows:
            raise InputError(f"no row {name!r} in the parameters; rows: {', '.join(self.rows)}")
        return self.rows[name]


def _check_rows(rows: dict[str, RowParams], rounds: int) -> None:
    for name, row in rows.items():
        for key in ("init", "maps"):
            other = getattr(row, key)
            check(other is None or other in rows, f"rows.{name}.{key} names no row: {other!r}")
        if row.explains is not None:
            _check_explains(name, row, rows)
        if row.init is not None:
            check(rows[row.init].explains is None, f"rows.{name}.init: {row.init} trains nothing")
            same = rows[row.init].network.backbone == row.network.backbone
            check(same, f"rows.{name}.init has another backbone than rows.{row.init}")
        if row.maps is not None:
            other = rows[row.maps]
            in_turn = other.maps == name and row.init is None and other.init is None
            check(
                other.maps is None or in_turn,
                f"rows.{name}.maps must name a phase-1 row, or one without `init` whose maps are "
                f"{name}'s (the two are trained in turn)",
            )
            check(
                in_turn or row.init is not None,
                f"rows.{name} goes on from no row; name one in `init`",
            )
            check(
                not in_turn or row.map_control is None,
                f"rows.{name}: no map_control where two rows are trained in turn",
            )
            check(
                not in_turn or row.train.epochs >= rounds,
                f"rows.{name}.train.epochs: expected at least an epoch for each of "
                f"alternation.rounds={rounds}, got {row.train.epochs}",
            )


def _check_explains(name: str, row: RowParams, rows: dict[str, RowParams]) -> None:
    assert row.explains is not None
    for key in ("row", "through"):
        other = getattr(row.explains, key)
        if other is None:
            continue
        check(other in rows, f"rows.{name}.explains.{key} names no row: {other!r}")
        named = rows[other]
        phase1 = named.init is None and named.maps is None and named.explains is None
        check(phase1, f"rows.{name}.explains.{key} must name a phase-1 row, got {other}")
    explained = rows[row.explains.row]
    network = replace(row.network, target_layers=explained.network.target_layers)
    same = (network, row.input) == (explained.network, explained.input)
    check(
        same and (row.system, row.model) == (explained.system, explained.model),
        f"rows.{name} must be as rows.{row.explains.row}, whose network it explains, but for "
        f"network.target_layers",
    )
    if row.explains.through is not None:
        through = rows[row.explains.through]
        other_stream = through.input.modality != row.input.modality
        check(other_stream, f"rows.{name}.explains.through must name a row of the other stream")
        check(row.explains.key_every == 1, f"rows.{name}: no key frames where maps are learnt")


def load(path: Path | str = "params.yaml") -> Params:
    """Read and check the parameters.

    YAML is read with ruamel, as DVC does: PyYAML takes `1e-3` for text.

    Raises:
        InputError: no such file, not YAML, or a key or value that is wrong; one line.
    """
    from ruamel.yaml import YAML, YAMLError

    path = Path(path)
    if not path.is_file():
        raise InputError(f"expected parameters in {path.resolve()}, found no such file")
    try:
        values = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None
    return schema.read(Params, values, "params")
