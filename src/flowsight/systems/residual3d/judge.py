"""Its clips: right or wrong. See `registry.subject.Subject` for what is here."""

from flowsight.classifiers.judge import (
    KIND,
    anew,
    inputs,
    items,
    per_split,
    quality,
    raw,
    reads,
    scores,
)

__all__ = [
    "KIND",
    "anew",
    "inputs",
    "items",
    "per_split",
    "quality",
    "raw",
    "reads",
    "scores",
]
