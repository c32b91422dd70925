"""Scores of a split's validation and test clips."""

from __future__ import annotations

from flowsight.classifiers import scores
from flowsight.contract import Job
from flowsight.systems.residual3d import network


def predict(job: Job) -> None:
    """Write `predictions.parquet`; see `classifiers.scores.write_predictions`."""
    scores.write_predictions(job, network)
