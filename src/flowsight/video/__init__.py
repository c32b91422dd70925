"""Videos and packs: counting, decoding, one stored zip per clip, denseflow/TSN folders."""
