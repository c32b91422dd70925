"""The parameters of background subtraction: videos, splits, and rows of networks over scenes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from flowsight.errors import InputError
from flowsight.params.schema import check, check_choice

PEERS = ("mog2", "knn", "cnt", "gsoc", "lsbp")
"""OpenCV's methods that run beside ours."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


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
class SceneRowParams:
    """One network over scenes."""

    model: str
    """System whose `network` it is."""
    task: str
    """What it learns."""
    network: SceneNetworkParams
    input: SceneInputParams
    train: SceneTrainParams
    threshold: float
    """Probability from which a pixel counts as moving."""

    def __post_init__(self) -> None:
        check(0 < self.threshold < 1, "threshold must be in (0, 1)")


@dataclass(frozen=True, kw_only=True)
class ScenesParams:
    """The system `background`: static-camera videos and the networks that run on them."""

    name: str
    """Folder below `data/raw`; also part of every output's path."""
    videos: tuple[str, ...]
    """`<category>/<name>`; every network is tested on all of them."""
    splits: dict[str, tuple[str, ...]]
    """Name -> videos whose first half of the truth trains; the others are unseen scenes."""
    peers: tuple[str, ...]
    """Methods of OpenCV that run beside the networks."""
    num_pictures: int
    """Frames of each video shown as pictures."""
    rows: dict[str, SceneRowParams]

    def __post_init__(self) -> None:
        check(bool(_NAME.fullmatch(self.name)), f"name {self.name!r} is not a folder name")
        check(len(self.videos) > 0, "videos must name at least one")
        check(len(set(self.videos)) == len(self.videos), "videos repeat")
        check(len(self.splits) > 0, "splits must name at least one")
        for name in (*self.splits, *self.rows):
            check(bool(_NAME.fullmatch(name)), f"{name!r} is not a file name")
        for name, videos in self.splits.items():
            known = videos and set(videos) <= set(self.videos)
            check(bool(known), f"splits.{name} must name some of scenes.videos, got {videos}")
        for peer in self.peers:
            check_choice("peers", peer, PEERS)
        check(self.num_pictures >= 1, "num_pictures must be at least 1")
        check(len(self.rows) > 0, "rows must name at least one")

    def row(self, name: str) -> SceneRowParams:
        """One row by name.

        Raises:
            InputError: there is no such row.
        """
        if name not in self.rows:
            raise InputError(f"no row {name!r} in scenes.rows; rows: {', '.join(self.rows)}")
        return self.rows[name]

    def trained_on(self, split_id: str) -> tuple[str, ...]:
        """Videos whose first half of the truth trains the networks of a split.

        Raises:
            InputError: there is no such split.
        """
        if split_id not in self.splits:
            known = ", ".join(self.splits)
            raise InputError(f"no split {split_id!r} in scenes.splits; splits: {known}")
        return self.splits[split_id]
