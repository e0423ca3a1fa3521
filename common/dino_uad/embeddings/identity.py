"""What cached embeddings were made from: bytes of files, code and settings of the preprocessing, weights."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dino_uad
from dino_uad.backbones import DinoBackbone
from dino_uad.describe import describe
from dino_uad.digests import digest_facts, digest_file, digest_sources
from dino_uad.transforms import files_of

ROOMS = ("backbones", "data", "detector", "embeddings", "transforms", "products.py")
"""Rooms of the package, and a module, whose code an embedding depends on."""
LIBRARIES = ("monai", "torch", "numpy", "nibabel", "itk-io", "pydicom", "python-gdcm", "pillow")
"""Packages that decode files and compute embeddings."""
PATHS = ("image", "label")
NO_INPUT = ("anomalous", "group")
"""Keys of an entry that say where it belongs and do not change what is embedded."""


def store_facts(transform: Callable, backbone: DinoBackbone) -> dict[str, Any]:
    """What all embeddings of one store have in common, in JSON types."""
    return {"backbone": backbone_facts(backbone), "code": code_version(), "transform": describe(transform)}


def backbone_facts(backbone: DinoBackbone) -> dict[str, Any]:
    """What a backbone's embeddings depend on, in JSON types."""
    return {
        "class": describe(type(backbone)),
        "arch": backbone.arch,
        "weights": backbone.identity,
        "layers": list(backbone.layers),
        "final_norm": backbone.final_norm,
        "joined": backbone.joined,
        "precision": backbone.precision,
        **({"compiled": True} if backbone.compiled else {}),
    }


def entry_key(entry: Mapping[str, Any]) -> str:
    """Digest of everything that a transform can read of one entry of a data list: files by their bytes, other values.

    The files are read anew in each run: sizes and times of change would be quicker, but on network drives, after a
    restored backup or two changes within one tick of the clock, they call different files equal.
    """
    facts: dict[str, Any] = {}
    for key, value in entry.items():
        if key not in NO_INPUT:
            paths = value if isinstance(value, list | tuple) else [value]
            read = paths and all(_is_path(key, path) for path in paths)
            facts[key] = [[digest_file(file) for file in files_of(path)] for path in paths] if read else describe(value)
    return digest_facts(facts)


def _is_path(key: str, value: Any) -> bool:
    named = isinstance(value, str | os.PathLike) and (key in PATHS or os.sep in os.fspath(value))
    return named and os.path.exists(value)


@functools.cache
def code_version() -> str:
    """Digest of this package's code that makes embeddings, and of the versions of the libraries that it uses."""
    return digest_sources(Path(dino_uad.__file__).parent, ROOMS, LIBRARIES)
