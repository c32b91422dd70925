"""A row of the parameters: one trained network, its input and its training."""

from __future__ import annotations

from dataclasses import dataclass

from flowsight.batches.params import InputParams
from flowsight.params.schema import check, check_choice
from flowsight.params.training import TrainParams


@dataclass(frozen=True, kw_only=True)
class BlockAttentionParams:
    """Attention in each block of a network over time."""

    channel: bool
    spatial: bool
    order: str
    """`channel_first` or `spatial_first`."""
    reduction: int
    """The channel attention's hidden layer has C / reduction units."""
    kernel: str
    """Of the spatial attention: `7x7` (each frame by itself) or `7x7x7`."""

    def __post_init__(self) -> None:
        check(self.reduction >= 1, "reduction must be at least 1")
        check_choice("order", self.order, ("channel_first", "spatial_first"))
        check_choice("kernel", self.kernel, ("7x7", "7x7x7"))


@dataclass(frozen=True, kw_only=True)
class NetworkParams:
    """One stream's network."""

    backbone: str
    """`tiny` or a classifier of torchvision; for clips one of its network's BACKBONES."""
    dropout: float
    map_channel: bool
    """Whether the other stream's attention map is an input channel."""
    target_layers: tuple[str, ...]
    """Modules that Grad-CAM explains, or whose spatial attention is shown, by their names."""
    width: int = 64
    """Channels of the first level, for networks over clips."""
    attention: BlockAttentionParams | None = None
    """In each block, for networks over clips; null: the baseline."""

    def __post_init__(self) -> None:
        check(0 <= self.dropout < 1, "dropout must be in [0, 1)")
        check(len(self.target_layers) > 0, "target_layers must name a module")
        check(self.width >= 1, "width must be at least 1")


@dataclass(frozen=True, kw_only=True)
class TestParams:
    """Views at test time."""

    num_views: int
    """Frames or stacks drawn evenly from a clip (25 in the papers)."""
    num_crops: int
    """10 (corners, centre, flips) or 1 (centre)."""

    def __post_init__(self) -> None:
        check(self.num_views >= 1, "num_views must be at least 1")
        check(self.num_crops in (1, 10), "num_crops must be 1 or 10")


@dataclass(frozen=True, kw_only=True)
class ExplainsParams:
    """Other maps of a network that there is: such a row trains none of its own."""

    row: str
    """Phase-1 row whose checkpoint makes the maps."""
    key_every: int = 1
    """Every k-th frame goes through the network; maps between are carried along the flow."""
    through: str | None = None
    """Phase-1 row of the other stream whose classification loss teaches the attention network, in
    place of Grad-CAM; null: Grad-CAM."""
    area_weight: float = 1.0
    """With `through`: what a map costs that lets everything pass, in nats."""

    def __post_init__(self) -> None:
        check(self.key_every >= 1, "key_every must be at least 1")
        check(self.area_weight >= 0, "area_weight must not be negative")


@dataclass(frozen=True, kw_only=True)
class StartParams:
    """What a network starts from, and whose maps it sees."""

    weights: str | None = None
    """null, `imagenet` (torchvision's own) or a file below `data/weights`."""
    init: str | None = None
    """Row whose checkpoint training goes on from."""
    maps: str | None = None
    """Row whose attention maps are the map channel; null: the constant."""
    map_control: str | None = None
    """What stands in for a clip's own maps, in training and in test: `shuffled` (those of a clip of
    another class) or `constant`; null: nothing. A row that learns as much from these has maps that
    explain nothing."""
    explains: ExplainsParams | None = None
    """Set: the row only makes maps, of another row's network; null: a network of its own."""

    def __post_init__(self) -> None:
        if self.map_control is not None:
            check_choice("map_control", self.map_control, ("shuffled", "constant"))
            check(self.maps is not None, "map_control needs maps to stand in for")
        if self.explains is not None:
            own = self.init is None and self.maps is None
            check(own, "a row that explains another one trains nothing: init and maps must be null")


@dataclass(frozen=True, kw_only=True)
class RowParams:
    """One trained network: a row of the parameters."""

    start: StartParams
    network: NetworkParams
    input: InputParams
    train: TrainParams
    test: TestParams

    def __post_init__(self) -> None:
        maps = self.start.maps is None or self.network.map_channel
        check(maps, "start.maps need network.map_channel")
        clips = self.input.clip_length is not None
        check(not (clips and self.network.map_channel), "clips have no map_channel")
        check(clips or self.network.attention is None, "network.attention needs input.clip_length")


@dataclass(frozen=True, kw_only=True)
class EvaluateParams:
    """From predictions to numbers."""

    bootstrap_samples: int
    """Clip resamples behind a confidence interval; 0: none."""
    confidence: float
    """Level of the interval."""
    num_overlays: int
    """Test clips drawn with their maps."""
    localization_frames: int
    """Frames of a clip, evenly drawn, that are scored against the true masks."""

    def __post_init__(self) -> None:
        check(self.bootstrap_samples >= 0, "bootstrap_samples must not be negative")
        check(0 < self.confidence < 1, "confidence must be in (0, 1)")
        check(self.localization_frames >= 1, "localization_frames must be at least 1")
