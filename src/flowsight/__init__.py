"""flowsight: a data-and-training pipeline for video understanding."""

__version__ = "0.1.0"
