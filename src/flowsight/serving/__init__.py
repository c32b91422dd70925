"""A trained system as one folder, and predictions of single videos with it."""
