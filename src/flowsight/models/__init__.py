"""Networks: one per file, built by `build(...)` with keyword arguments."""
