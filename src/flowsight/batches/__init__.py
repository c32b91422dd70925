"""Clips as tensors: sampling, transforms, maps; knows no system."""
