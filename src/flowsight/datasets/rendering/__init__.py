"""Drawing for the generated `sample` data set: OpenCV and numpy, seeded, exact ground truth."""
