"""The parameters of expression recognition: faces with a class, and rows of networks."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from flowsight.errors import InputError
from flowsight.params.promotion import PromotionParams
from flowsight.params.schema import check, check_choice
from flowsight.params.training import TrainParams

SYSTEM = "expression_recognition"
OWN = ("vgg_fer", "tiny")
"""Backbones of one grey channel, made for small pictures; their width may be chosen."""
BACKBONES = ("vgg16", "vgg16_bn", "squeezenet1_0", *OWN)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which pictures, and how they are divided."""

    name: str
    """Folder below `data/raw`; also part of every output's path."""
    split_ids: tuple[str, ...]
    """Each name is another choice of what validates; the test pictures are the folder's own."""
    val_share: float
    """Of the training pictures, whole groups; of no meaning where the folder brings its own."""
    side_px: int | None
    """Width and height that every picture must have; null: any."""
    max_quarantined: float
    """Share of the pictures that may be refused before the run stops."""

    def __post_init__(self) -> None:
        for name in (self.name, *self.split_ids):
            check(bool(_NAME.fullmatch(name)), f"{name!r} is not a file name")
        check(len(self.split_ids) > 0, "split_ids must name at least one split")
        check(len(set(self.split_ids)) == len(self.split_ids), "split_ids repeat")
        for share in ("val_share", "max_quarantined"):
            check(0 <= getattr(self, share) < 1, f"{share} must be in [0, 1)")
        check(self.side_px is None or self.side_px >= 1, "side_px must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a training begins with."""

    weights: str | None = None
    """null, `imagenet` (torchvision's own) or a file below `data/weights`."""
    init: str | None = None
    """Row whose checkpoint training goes on from; null: from `weights`."""
    frozen: bool = False
    """Step 1 of a transfer: the convolutions stay as they are and only the classifier learns. Step
    2 is another row whose `init` is this one."""

    def __post_init__(self) -> None:
        check(self.init is None or self.weights is None, "init and weights exclude each other")
        begun = self.init is not None or self.weights is not None
        check(begun or not self.frozen, "frozen needs weights or init: random features say nothing")


@dataclass(frozen=True, kw_only=True)
class Network:
    """A classifier of images."""

    backbone: str
    """One of `BACKBONES`."""
    width: int | None = None
    """Channels of the first level of `vgg_fer` (null: 64) and `tiny` (null: 16); others have none
    to choose."""
    dropout: float = 0.5

    def __post_init__(self) -> None:
        check_choice("backbone", self.backbone, BACKBONES)
        check(0 <= self.dropout < 1, "dropout must be in [0, 1)")
        check(self.width is None or self.width >= 1, "width must be at least 1")
        own = self.backbone in OWN
        check(own or self.width is None, f"width must be null for {self.backbone}")

    @property
    def channels(self) -> int:
        """Of the input: 1 (grey), or 3, where grey is repeated."""
        return 1 if self.backbone in OWN else 3


@dataclass(frozen=True, kw_only=True)
class Input:
    """What a network sees of a picture, and what chance does to it in training."""

    resize_px: int
    """Side that pictures are brought to, bilinearly."""
    crop_px: int
    """Side of what is cut out of it."""
    colour: bool = False
    """Colours, for backbones of three channels; else grey."""
    scale: float = 0.2
    """Rescaled by 1 - scale ... 1 + scale."""
    shift: float = 0.2
    """Moved by up to this share of the side, each way."""
    rotation_deg: float = 10.0
    """Turned by up to this, each way."""
    mirror: bool = True
    erase: float = 0.5
    """Share of the training pictures of which a rectangle is erased."""

    def __post_init__(self) -> None:
        check(0 < self.crop_px <= self.resize_px, "crop_px must be in 1..resize_px")
        for name in ("scale", "shift"):
            check(0 <= getattr(self, name) < 1, f"{name} must be in [0, 1)")
        check(0 <= self.rotation_deg <= 180, "rotation_deg must be in [0, 180]")
        check(0 <= self.erase <= 1, "erase must be in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class Train(TrainParams):
    """Optimisation and loss."""

    class_weights: str
    """`none`, or `inverse_root`: an item of a class of n counts 1 / sqrt(n), over the mean."""
    features_lr: float = 1.0
    """The convolutions' learning rate as a share of the classifier's (step 2 of a transfer)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("class_weights", self.class_weights, ("none", "inverse_root"))
        check(0 < self.features_lr <= 1, "features_lr must be in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class Test:
    """What is looked at in a test."""

    num_crops: int
    """10 (corners, centre, mirrored; the mean of their logits) or 1 (centre)."""

    def __post_init__(self) -> None:
        check(self.num_crops in (1, 10), "num_crops must be 1 or 10")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One trained network."""

    start: Start
    network: Network
    input: Input
    train: Train
    test: Test

    def __post_init__(self) -> None:
        grey = self.network.channels == 1
        check(not (grey and self.input.colour), f"{self.network.backbone} sees grey: colour: false")


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """From predictions to numbers."""

    bootstrap_samples: int
    """Resamples of the test pictures behind a confidence interval; 0: none."""
    confidence: float
    """Level of the interval."""
    num_pictures: int
    """Test faces shown, as many right as wrong ones where there are."""

    def __post_init__(self) -> None:
        check(self.bootstrap_samples >= 0, "bootstrap_samples must not be negative")
        check(0 < self.confidence < 1, "confidence must be in (0, 1)")
        check(self.num_pictures >= 0, "num_pictures must not be negative")


@dataclass(frozen=True, kw_only=True)
class Block:
    """The system's parameters."""

    data: Data
    rows: dict[str, Row]
    evaluate: Evaluate
    serve: str | None
    """The row that is served; null: the last one of a transfer, else the first."""
    promote: PromotionParams = field(default_factory=PromotionParams)

    def __post_init__(self) -> None:
        check(len(self.rows) > 0, "rows must name at least one")
        for name, row in self.rows.items():
            check(bool(_NAME.fullmatch(name)), f"{name!r} is not a file name")
            self._check_init(name, row)
        known = self.serve is None or self.serve in self.rows
        check(known, f"serve names no row: {self.serve!r}")

    def _check_init(self, name: str, row: Row) -> None:
        if row.start.init is None:
            return
        other = self.rows.get(row.start.init)
        check(other is not None, f"rows.{name}.start.init names no row: {row.start.init!r}")
        assert other is not None
        check(other.start.init is None, f"rows.{name}.start.init must name a row without init")
        same = row.network == other.network and row.input.colour == other.input.colour
        check(same, f"rows.{name} must have the network of rows.{row.start.init}")

    def row(self, name: str) -> Row:
        """One row by name.

        Raises:
            InputError: there is no such row.
        """
        if name not in self.rows:
            raise InputError(
                f"no row {name!r} in systems.{SYSTEM}.rows; rows: {', '.join(self.rows)}"
            )
        return self.rows[name]

    @property
    def served_row(self) -> str:
        """The row that is served, never chosen by what it scored on test pictures."""
        if self.serve is not None:
            return self.serve
        return next((n for n, row in self.rows.items() if row.start.init), next(iter(self.rows)))
