"""What a network over clips sees: the parameters `input` of a row."""

from __future__ import annotations

from dataclasses import dataclass

from flowsight.params.schema import check, check_choice


@dataclass(frozen=True, kw_only=True)
class InputParams:
    """What a network sees."""

    modality: str
    """`rgb` or `flow`."""
    stack_length: int
    """Flow fields in a stack (1 for RGB)."""
    num_segments: int
    """TSN segments K; 1 is Two-Stream."""
    resize_px: int
    """Short side of the frame before cropping."""
    crop_px: int
    scales: tuple[float, ...]
    """Multi-scale cropping: sides of the crop as shares of the short side."""
    flip: bool
    """Mirror half of the training clips (u is negated)."""
    map_value: float
    """The constant map of phase 1."""
    clip_length: int | None = None
    """Frames or flow fields T of a clip, for networks over time; null: single frames or stacks."""
    fps: float | None = None
    """Clips are drawn at this rate, by time stamps; null: the source's own."""

    def __post_init__(self) -> None:
        check_choice("modality", self.modality, ("rgb", "flow"))
        check(self.stack_length >= 1, "stack_length must be at least 1")
        check(self.modality == "flow" or self.stack_length == 1, "stack_length of rgb must be 1")
        check(self.num_segments >= 1, "num_segments must be at least 1")
        check(0 < self.crop_px <= self.resize_px, "crop_px must be in 1..resize_px")
        check(all(0 < s <= 1 for s in self.scales) and len(self.scales) > 0, "scales: (0, 1]")
        check(0 <= self.map_value <= 1, "map_value must be in [0, 1]")
        check(self.clip_length is None or self.clip_length >= 1, "clip_length must be at least 1")
        check(self.clip_length is None or self.stack_length == 1, "stack_length of clips must be 1")
        check(self.fps is None or self.clip_length is not None, "fps needs clip_length")
        check(self.fps is None or self.fps > 0, "fps must be positive")

    @property
    def images_per_input(self) -> int:
        """Stored images (or stacks) behind one input of the network."""
        return self.clip_length or 1
