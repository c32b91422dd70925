"""The parameters of background subtraction: rows of networks over scenes."""

from __future__ import annotations

from dataclasses import dataclass, field

from flowsight.errors import InputError
from flowsight.params.promotion import PromotionParams
from flowsight.params.schema import check, check_choice

SYSTEM = "background"
PEERS = ("mog2", "knn", "cnt", "gsoc", "lsbp")
"""OpenCV's methods that run beside ours."""


@dataclass(frozen=True, kw_only=True)
class SceneNetworkParams:
    """Widths, one of each kind a layer."""

    lstm_units: tuple[int, ...]
    gru_units: tuple[int, ...]
    filters: tuple[int, ...]
    dropout: float
    """Of inputs and recurrent states, one mask a sequence."""
    pairs: bool = False
    """Half of the LSTM's units start as what is seen now, paired with the running means that the
    other half are; learns far faster, and wants sequences longer than those means (40 frames)."""

    def __post_init__(self) -> None:
        counts = {len(self.lstm_units), len(self.gru_units), len(self.filters)}
        check(len(counts) == 1 and counts != {0}, "expected one width of each kind a layer")
        widths = (*self.lstm_units, *self.gru_units, *self.filters)
        check(min(widths) >= 1, "widths must be at least 1")
        check(0 <= self.dropout < 1, "dropout must be in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class SceneInputParams:
    """What the network sees of a frame."""

    colour: bool
    """Three channels instead of grey levels."""
    background_frames: int
    """The median of so many first frames is subtracted to make as many channels again; 0: the
    frames only."""
    pixel_stride: int
    """In training every so many-th pixel of a row and of a column."""
    crop: tuple[int, int]
    """Height and width of training crops, in pixels after the stride; cut to the frame's size."""
    flip: bool
    """Mirror half of the training sequences."""
    recolour: bool
    """Give what moves another colour, by its true mask, in half of the training sequences."""
    light: float
    """How far the light changes in training, as a share: of the whole sequence, of its background
    picture by itself, and slowly within the sequence; 0: not at all."""

    def __post_init__(self) -> None:
        check(self.background_frames >= 0, "background_frames must not be negative")
        check(self.pixel_stride >= 1, "pixel_stride must be at least 1")
        check(min(self.crop) >= 1, "crop must be at least 1 px")
        check(0 <= self.light < 1, "light must be in [0, 1)")

    @property
    def channels(self) -> int:
        """Of the network's input."""
        return (3 if self.colour else 1) * (2 if self.background_frames else 1)


@dataclass(frozen=True, kw_only=True)
class SceneTrainParams:
    """Optimisation by Adam and truncated back-propagation through time."""

    epochs: int
    batches: int
    """Of an epoch."""
    batch_size: int
    """Sequences side by side."""
    warmup_frames: int
    """Frames at the start of a sequence that only fill the state."""
    chunk_frames: int
    """Frames through which the loss is propagated back; a step of the optimiser each."""
    chunks: int
    """Of a sequence; the state is carried from one to the next."""
    moving_share: float
    """Share of the sequences whose crop and time are drawn so that something moves there."""
    lr: float
    schedule: str
    """`constant` or `cosine`."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batches", "batch_size", "chunk_frames", "chunks"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1")
        check(self.warmup_frames >= 0, "warmup_frames must not be negative")
        check(0 <= self.moving_share <= 1, "moving_share must be in [0, 1]")
        check(self.lr > 0, "lr must be positive")
        check_choice("schedule", self.schedule, ("constant", "cosine"))

    @property
    def sequence_frames(self) -> int:
        """Length of a training sequence."""
        return self.warmup_frames + self.chunks * self.chunk_frames


@dataclass(frozen=True, kw_only=True)
class SceneStartParams:
    """Networks start from nothing."""


@dataclass(frozen=True, kw_only=True)
class SceneTestParams:
    """How probabilities become masks."""

    threshold: float
    """Probability from which a pixel counts as moving."""

    def __post_init__(self) -> None:
        check(0 < self.threshold < 1, "threshold must be in (0, 1)")


@dataclass(frozen=True, kw_only=True)
class SceneRowParams:
    """One network over scenes."""

    start: SceneStartParams = field(default_factory=SceneStartParams)
    network: SceneNetworkParams
    input: SceneInputParams
    train: SceneTrainParams
    test: SceneTestParams


@dataclass(frozen=True, kw_only=True)
class EvaluateParams:
    """From counts to numbers."""

    num_pictures: int
    """Frames of each video shown as pictures."""

    def __post_init__(self) -> None:
        check(self.num_pictures >= 1, "num_pictures must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Block:
    """`systems.background`."""

    peers: tuple[str, ...]
    """Methods of OpenCV that run beside the networks."""
    rows: dict[str, SceneRowParams]
    evaluate: EvaluateParams
    serve: str | None = None
    """The row that is registered and served; null: by the system's own rule (its README)."""
    promote: PromotionParams = field(default_factory=PromotionParams)

    def __post_init__(self) -> None:
        for peer in self.peers:
            check_choice("peers", peer, PEERS)
        check(len(self.rows) > 0, "rows must name at least one")

    def row(self, name: str) -> SceneRowParams:
        """One row by name.

        Raises:
            InputError: there is no such row.
        """
        if name not in self.rows:
            known = ", ".join(self.rows)
            raise InputError(f"no row {name!r} in systems.background.rows; rows: {known}")
        return self.rows[name]
