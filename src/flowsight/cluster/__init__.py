"""What a worker of a cluster does: own clone, one stage, its results into the common store."""
