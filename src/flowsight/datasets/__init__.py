"""What lies on disk, a folder a kind; a kind does not know who uses it."""
