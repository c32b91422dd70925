"""Data sets: what lies on disk, clips and their splits, what a network sees."""
