"""Training of a 3D residual network."""

from __future__ import annotations

from flowsight.classifiers import training
from flowsight.contract import Job, Trained
from flowsight.systems.residual3d import network


def train(job: Job) -> Trained:
    """Train a row on the training clips of a split; see `classifiers.training.train`."""
    return training.train(job, network)
