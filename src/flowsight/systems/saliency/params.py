"""The parameters of salient-object detection: plans, and rows of networks."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from flowsight.errors import InputError
from flowsight.params.promotion import PromotionParams
from flowsight.params.schema import check, check_choice
from flowsight.params.training import TrainParams

SYSTEM = "saliency"
BACKBONES = ("vgg16", "vgg16_bn", "squeezenet1_0")
CHOICES = ("first", "random", "l1", "taylor")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class ImageNetworkParams:
    """A fully convolutional network."""

    backbone: str
    """One of `systems.saliency.network.BACKBONES`."""
    width: int = 64
    """Channels of VGG's first level; fc6 and fc7 have 64 times (SqueezeNet: 8 times) as many."""
    border: str = "published"
    """`published` (the image is padded by 100 px) or `same`."""
    dropout: float = 0.5

    def __post_init__(self) -> None:
        check_choice("backbone", self.backbone, BACKBONES)
        check_choice("border", self.border, ("published", "same"))
        check(self.width >= 1, "width must be at least 1")
        check(0 <= self.dropout < 1, "dropout must be in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class ImageInputParams:
    """What a network sees of an image."""

    long_px: int | None
    """Larger images are shrunk to this long side; null: every image as it is."""
    scales: tuple[float, ...]
    """In training images are scaled by one of these, drawn at random."""
    flip: bool
    """Mirror half of the training images."""

    def __post_init__(self) -> None:
        check(self.long_px is None or self.long_px >= 1, "long_px must be at least 1")
        check(len(self.scales) > 0 and min(self.scales) > 0, "scales must be positive")


@dataclass(frozen=True, kw_only=True)
class SlimParams:
    """Which kernels of another row's network are cut before training goes on."""

    plan: str
    """Key of `plans`."""
    choice: str
    """Which kernels stay: `first`, `random`, `l1` or `taylor`."""
    num_images: int = 32
    """Training images that Taylor scores are computed on."""

    def __post_init__(self) -> None:
        check_choice("choice", self.choice, CHOICES)
        check(self.num_images >= 1, "num_images must be at least 1")


@dataclass(frozen=True, kw_only=True)
class ImageStartParams:
    """What a network starts from."""

    weights: str | None = None
    """null, `imagenet` (torchvision's own) or a file below `data/weights`."""
    init: str | None = None
    """Row whose checkpoint is slimmed and trained on; null: from `weights`."""
    slim: SlimParams | None = None

    def __post_init__(self) -> None:
        check(self.slim is None or self.init is not None, "slim needs init, the row to slim")


@dataclass(frozen=True, kw_only=True)
class ImageTestParams:
    """An image is seen once, as a whole."""


@dataclass(frozen=True, kw_only=True)
class ImageRowParams:
    """One network over images."""

    start: ImageStartParams
    network: ImageNetworkParams
    input: ImageInputParams
    train: TrainParams
    """Its `loss` is cross entropy over an image's pixels: `sum` (the paper) or `mean`. For images
    of N pixels `sum` at rate r and weight decay w is `mean` at N r and w / N."""
    test: ImageTestParams = field(default_factory=ImageTestParams)

    def __post_init__(self) -> None:
        check_choice("train.loss", str(self.train.loss), ("sum", "mean"))


@dataclass(frozen=True, kw_only=True)
class EvaluateParams:
    """From maps to numbers."""

    bootstrap_samples: int
    """Image resamples behind a confidence interval; 0: none."""
    confidence: float
    """Level of the interval."""
    num_pictures: int
    """Test images shown with their maps."""
    experiments: dict[str, str]
    """Experiment of the paper's tables (base, a to h) -> the row that stands for it."""

    def __post_init__(self) -> None:
        check(self.bootstrap_samples >= 0, "bootstrap_samples must not be negative")
        check(0 < self.confidence < 1, "confidence must be in (0, 1)")
        check(self.num_pictures >= 0, "num_pictures must not be negative")


@dataclass(frozen=True, kw_only=True)
class Block:
    """`systems.saliency`."""

    plans: dict[str, dict[str, float]]
    """Name -> layer -> share of its kernels that stays."""
    rows: dict[str, ImageRowParams]
    evaluate: EvaluateParams
    serve: str | None = None
    """The row that is registered and served; null: by the system's own rule (its README)."""
    promote: PromotionParams = field(default_factory=PromotionParams)

    def __post_init__(self) -> None:
        check(len(self.rows) > 0, "rows must name at least one")
        for plan, layers in self.plans.items():
            check(bool(_NAME.fullmatch(plan)), f"{plan!r} is not a file name")
            check(len(layers) > 0, f"plans.{plan} must name a layer")
            check(all(0 < s <= 1 for s in layers.values()), f"plans.{plan}: shares in (0, 1]")
        for name, row in self.rows.items():
            self._check_row(name, row)
        for experiment, name in self.evaluate.experiments.items():
            known = name in self.rows
            check(known, f"evaluate.experiments.{experiment} names no row: {name!r}")

    def _check_row(self, name: str, row: ImageRowParams) -> None:
        init, slim = row.start.init, row.start.slim
        if init is None:
            return
        check(init in self.rows, f"rows.{name}.start.init names no row: {init!r}")
        other = self.rows[init]
        check(other.start.init is None, f"rows.{name}.start.init must name a row without init")
        same = row.network == other.network
        check(same, f"rows.{name} must have the network of rows.{init}, which it goes on from")
        plan = None if slim is None else slim.plan
        known = plan is None or plan in self.plans
        check(known, f"rows.{name}.start.slim.plan names no plan: {plan!r}")

    def row(self, name: str) -> ImageRowParams:
        """One row by name.

        Raises:
            InputError: there is no such row.
        """
        if name not in self.rows:
            known = ", ".join(self.rows)
            raise InputError(f"no row {name!r} in systems.saliency.rows; rows: {known}")
        return self.rows[name]

    def plan_of(self, row: ImageRowParams) -> dict[str, float]:
        """Layer -> share of its kernels that stays; empty where nothing is cut."""
        return {} if row.start.slim is None else self.plans[row.start.slim.plan]
