"""The parameters of salient-object detection: images, splits, plans, and rows of networks."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from flowsight.errors import InputError
from flowsight.params.schema import check, check_choice
from flowsight.params.training import TrainParams

BACKBONES = ("vgg16", "vgg16_bn", "squeezenet1_0")
CHOICES = ("first", "random", "l1", "taylor")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class ImageNetworkParams:
    """A fully convolutional network."""

    backbone: str
    """One of `systems.saliency.network.BACKBONES`."""
    weights: str | None
    """null, `imagenet` (torchvision's own) or a file below `data/weights`."""
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
    """Key of `images.plans`."""
    choice: str
    """Which kernels stay: `first`, `random`, `l1` or `taylor`."""
    num_images: int = 32
    """Training images that Taylor scores are computed on."""

    def __post_init__(self) -> None:
        check_choice("choice", self.choice, CHOICES)
        check(self.num_images >= 1, "num_images must be at least 1")


@dataclass(frozen=True, kw_only=True)
class ImageRowParams:
    """One network over images."""

    model: str
    """System whose `network` it is."""
    task: str
    """What it learns."""
    init: str | None = None
    """Row whose checkpoint is slimmed and trained on; null: from `network.weights`."""
    slim: SlimParams | None = None
    experiment: str | None = None
    """Its name in the paper's tables: base or a to h."""
    network: ImageNetworkParams
    input: ImageInputParams
    loss: str
    """Cross entropy over an image's pixels: `sum` (the paper) or `mean`. For images of N pixels
    `sum` at rate r and weight decay w is `mean` at N r and w / N."""
    train: TrainParams

    def __post_init__(self) -> None:
        check_choice("loss", self.loss, ("sum", "mean"))
        check(self.slim is None or self.init is not None, "slim needs init, the row to slim")


@dataclass(frozen=True, kw_only=True)
class ImagesParams:
    """The system `saliency`: pairs of images and masks, and the networks that run on them."""

    name: str
    """Folder below `data/raw`; also part of every output's path."""
    split_ids: tuple[str, ...]
    """Each name is another division of the pairs, drawn with the seed."""
    test_share: float
    """Of all pairs."""
    val_share: float
    """Of the pairs that do not test."""
    max_quarantined: float
    """Share of the pairs that may be refused before the run stops."""
    num_pictures: int
    """Test images shown with their maps."""
    plans: dict[str, dict[str, float]]
    """Name -> layer -> share of its kernels that stays."""
    rows: dict[str, ImageRowParams] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(bool(_NAME.fullmatch(self.name)), f"name {self.name!r} is not a folder name")
        check(len(self.split_ids) > 0, "split_ids must name at least one split")
        check(len(set(self.split_ids)) == len(self.split_ids), "split_ids repeat")
        for name in (*self.split_ids, *self.rows, *self.plans):
            check(bool(_NAME.fullmatch(name)), f"{name!r} is not a file name")
        check(0 < self.test_share < 1, "test_share must be in (0, 1)")
        for share in ("val_share", "max_quarantined"):
            check(0 <= getattr(self, share) < 1, f"{share} must be in [0, 1)")
        check(self.num_pictures >= 0, "num_pictures must not be negative")
        check(len(self.rows) > 0, "rows must name at least one")
        for plan, layers in self.plans.items():
            check(len(layers) > 0, f"plans.{plan} must name a layer")
            check(all(0 < s <= 1 for s in layers.values()), f"plans.{plan}: shares in (0, 1]")
        for name, row in self.rows.items():
            self._check_row(name, row)

    def _check_row(self, name: str, row: ImageRowParams) -> None:
        if row.init is None:
            return
        check(row.init in self.rows, f"rows.{name}.init names no row: {row.init!r}")
        other = self.rows[row.init]
        check(other.init is None, f"rows.{name}.init must name a row without init")
        same = (row.model, row.network) == (other.model, other.network)
        check(same, f"rows.{name} must have the network of rows.{row.init}, which it goes on from")
        plan = None if row.slim is None else row.slim.plan
        check(plan is None or plan in self.plans, f"rows.{name}.slim.plan names no plan: {plan!r}")

    def row(self, name: str) -> ImageRowParams:
        """One row by name.

        Raises:
            InputError: there is no such row.
        """
        if name not in self.rows:
            raise InputError(f"no row {name!r} in images.rows; rows: {', '.join(self.rows)}")
        return self.rows[name]

    def plan_of(self, row: ImageRowParams) -> dict[str, float]:
        """Layer -> share of its kernels that stays; empty where nothing is cut."""
        return {} if row.slim is None else self.plans[row.slim.plan]
