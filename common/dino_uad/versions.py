"""Versions of this package and of those that its numbers depend on."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

import dino_uad

DEPENDED_ON = ("torch", "monai", "pytorch-ignite", "numpy")


def installed_version(name: str) -> str | None:
    """Of an installed package; None if none of that name is, as where ``itk-io`` brings the modules of ``itk``."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def package_versions(names: Iterable[str] = DEPENDED_ON) -> dict[str, str]:
    """Of this package, which needs not be installed (a shared zip brings its own), and of those that are."""
    return {"dino-uad": dino_uad.__version__} | {name: found for name in names if (found := installed_version(name))}
