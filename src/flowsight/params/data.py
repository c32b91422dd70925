"""The data a pipeline starts from: clips, scenes, images, the rendered sample."""

from __future__ import annotations

import re
from dataclasses import dataclass

from flowsight.errors import InputError
from flowsight.params.schema import check, check_choice

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class DatasetParams:
    """Which data set, and how much of it may be missing."""

    name: str
    """Folder below `data/raw`; also part of every output's path."""
    adapter: str
    """Module of `flowsight.datasets` that knows the layout."""
    max_absent: float = 0.0
    """Share of listed clips that may be absent; 1.0 also drops classes left empty."""
    max_quarantined: float = 0.05
    """Share of clips that may be quarantined before the gate refuses."""

    def __post_init__(self) -> None:
        check(bool(_NAME.fullmatch(self.name)), f"name {self.name!r} is not a folder name")
        for name in ("max_absent", "max_quarantined"):
            check(0 <= getattr(self, name) <= 1, f"{name} must be in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class SampleParams:
    """The generated data set."""

    seed: int
    num_groups: int
    """Actors, each with a look and a background; groups never straddle a split."""
    num_test_groups: int
    clips_per_group: int
    """Clips of each class and group."""
    num_frames: int
    fps: int
    width: int
    height: int
    scene_frames: int
    """Frames of each static-camera sequence."""
    num_images: int
    """Image and mask pairs for saliency."""
    num_persons: int
    """Whose faces are drawn; a quarter of them stand on the test side."""
    pictures_per_person: int
    """Of each expression."""

    def __post_init__(self) -> None:
        check(0 < self.num_test_groups < self.num_groups, "num_test_groups must leave a group")


@dataclass(frozen=True, kw_only=True)
class FramesParams:
    """How frames are stored."""

    size: tuple[int, int] | None
    """Width and height in px; null keeps the source's. Flow is computed at this size."""
    quality: int
    """JPEG quality."""

    def __post_init__(self) -> None:
        check(1 <= self.quality <= 100, "quality must be in 1..100")
        check(self.size is None or min(self.size) >= 16, "size must be at least 16 px")


@dataclass(frozen=True, kw_only=True)
class FlowParams:
    """How optical flow is computed and stored."""

    method: str
    """`tvl1`, `dis` or `farneback`."""
    preset: str
    """TV-L1's numbers: `opencv`, `near`, `fast` or `cuda`."""
    backend: str
    """Never `auto` in a stage: the same parameters must give the same bytes."""
    bound_px: float
    """Displacements are clipped to +- this before quantisation to uint8."""
    quality: int

    def __post_init__(self) -> None:
        check_choice("method", self.method, ("tvl1", "dis", "farneback"))
        check_choice("preset", self.preset, ("opencv", "near", "fast", "cuda"))
        check_choice("backend", self.backend, ("cpu", "torch", "gpu", "opencv"))
        check(self.bound_px > 0, "bound_px must be positive")
        check(1 <= self.quality <= 100, "quality must be in 1..100")


@dataclass(frozen=True, kw_only=True)
class SplitsParams:
    """Which official splits run, and how validation data are cut from training groups."""

    ids: tuple[str, ...]
    val_share: float
    """Share of the training groups kept for validation."""

    def __post_init__(self) -> None:
        check(len(self.ids) > 0, "ids must name at least one split")
        check(len(set(self.ids)) == len(self.ids), f"ids repeat: {', '.join(self.ids)}")
        check(0 <= self.val_share < 1, "val_share must be in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class ScenesParams:
    """Videos of static cameras."""

    name: str
    """Folder below `data/raw`; also part of every output's path."""
    videos: tuple[str, ...]
    """`<category>/<name>`; every network is tested on all of them."""
    splits: dict[str, tuple[str, ...]]
    """Name -> videos whose first half of the truth trains; the others are unseen scenes."""

    def __post_init__(self) -> None:
        check(bool(_NAME.fullmatch(self.name)), f"name {self.name!r} is not a folder name")
        check(len(self.videos) > 0, "videos must name at least one")
        check(len(set(self.videos)) == len(self.videos), "videos repeat")
        check(len(self.splits) > 0, "splits must name at least one")
        for name, videos in self.splits.items():
            check(bool(_NAME.fullmatch(name)), f"{name!r} is not a file name")
            known = videos and set(videos) <= set(self.videos)
            check(bool(known), f"splits.{name} must name some of scenes.videos, got {videos}")

    def trained_on(self, split_id: str) -> tuple[str, ...]:
        """Videos whose first half of the truth trains the networks of a split.

        Raises:
            InputError: there is no such split.
        """
        if split_id not in self.splits:
            known = ", ".join(self.splits)
            raise InputError(f"no split {split_id!r} in scenes.splits; splits: {known}")
        return self.splits[split_id]


@dataclass(frozen=True, kw_only=True)
class ImagesParams:
    """Pairs of images and masks."""

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

    def __post_init__(self) -> None:
        check(bool(_NAME.fullmatch(self.name)), f"name {self.name!r} is not a folder name")
        check(len(self.split_ids) > 0, "split_ids must name at least one split")
        check(len(set(self.split_ids)) == len(self.split_ids), "split_ids repeat")
        for name in self.split_ids:
            check(bool(_NAME.fullmatch(name)), f"{name!r} is not a file name")
        check(0 < self.test_share < 1, "test_share must be in (0, 1)")
        for share in ("val_share", "max_quarantined"):
            check(0 <= getattr(self, share) < 1, f"{share} must be in [0, 1)")
