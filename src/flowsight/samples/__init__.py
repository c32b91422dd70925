"""The renderer of the sample data: OpenCV and numpy, seeded, exact ground truth."""
