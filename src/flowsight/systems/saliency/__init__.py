"""Salient objects in images: fully convolutional networks, whole and slimmed."""
