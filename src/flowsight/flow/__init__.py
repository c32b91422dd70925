"""Optical flow: one face over methods, presets and backends."""

from flowsight.flow.api import compute, compute_clip, compute_levels, tvl1, tvl1_clip

__all__ = ["compute", "compute_clip", "compute_levels", "tvl1", "tvl1_clip"]
