"""Versions of this package and of those that its numbers depend on."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

import dino_uad

DEPENDED_ON = ("torch", "monai", "pytorch-ignite", "numpy")


def installed_version(name: str) -> str | None:
    """Version of an installed package; None if it is not, as where ``itk-io`` brings the modules of ``itk``."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def package_versions(names: Iterable[str] = DEPENDED_ON) -> dict[str, str]:
    """Versions of this package (from a shared zip it need not be installed) and of those of ``names`` that are."""
    return {"dino-uad": dino_uad.__version__} | {name: found for name in names if (found := installed_version(name))}
