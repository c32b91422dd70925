"""One folder a system; flowsight.contract says what stands in it."""
