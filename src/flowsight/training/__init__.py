"""The one training loop, its schedule, its resuming; knows no network."""
