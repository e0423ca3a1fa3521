"""Sharing a bundle: to a model-zoo zip that works without this repository, and safely back from one."""

from dino_uad.export.same_package import require_same_package

__all__ = [
    "require_same_package",
]
