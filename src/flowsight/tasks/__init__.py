"""Tasks: from a batch to a loss, and to what is measured while training."""
