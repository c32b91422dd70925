"""Two streams over clips that see each other's attention."""
