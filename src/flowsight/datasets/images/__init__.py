"""Images on disk, with masks or labels."""
