"""Models that are kept: registered versions, the gate before service, its history, lineage."""
