"""Clips with a class on disk: adapters, manifest, packs, splits, gates."""
