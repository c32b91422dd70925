"""How a data set lies on disk; `dataset.adapter` names the module."""
