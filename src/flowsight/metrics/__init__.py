"""Predictions to numbers: plain functions over NumPy arrays."""
