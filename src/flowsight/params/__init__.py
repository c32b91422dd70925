"""The parameters: params.yaml as frozen dataclasses, checked once."""
