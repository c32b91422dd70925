"""dvc.yaml read, composed and run."""
