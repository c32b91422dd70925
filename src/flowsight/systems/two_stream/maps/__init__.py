"""Attention maps: Grad-CAM, the network that predicts them without a label, their quality."""
