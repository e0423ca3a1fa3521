"""Sharing a bundle: to a model-zoo zip that works without this repository, and safely back from one."""
