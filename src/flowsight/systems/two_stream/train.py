"""Training of a stream: on its own, or on from phase 1 with the other stream's maps."""

from __future__ import annotations

from flowsight.classifiers import training
from flowsight.contract import Job, Trained
from flowsight.systems.two_stream import network


def train(job: Job) -> Trained:
    """Train a row on the training clips of a split; see `classifiers.training.train`."""
    return training.train(job, network)
