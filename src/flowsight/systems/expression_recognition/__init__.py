"""Which expression a face shows: one image of a face, one class."""
