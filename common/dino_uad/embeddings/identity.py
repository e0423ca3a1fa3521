"""What cached embeddings were made from: bytes of files, code and settings of the preprocessing, weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dino_uad.backbones import DinoBackbone
from dino_uad.describe import describe
from dino_uad.digests import digest_code, digest_facts, digest_file
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


class Identity(NamedTuple):
    """What an entry of a data list is, by the bytes of its files.

    Attributes:
        key: digest of everything that a transform can read of it.
        image: of its image alone, eight bytes as a signed number.
        state: :func:`files_state` before the files were read.
    """

    key: str
    image: int
    state: int


def identify(entry: Mapping[str, Any]) -> Identity:
    """Digests of all that a transform can read of one entry of a data list: files by their bytes, other values.

    The files are read anew in each run: sizes and times of change would be quicker, but on network drives, after a
    restored backup or two changes within one tick of the clock, they call different files equal.
    """
    state = files_state(entry)
    facts: dict[str, Any] = {}
    for key, value in entry.items():
        if key not in NO_INPUT:
            paths = _paths(key, value)
            facts[key] = [[digest_file(file) for file in files_of(path)] for path in paths] or describe(value)
    return Identity(digest_facts(facts), _short(digest_facts(facts.get("image"))), state)


def entry_key(entry: Mapping[str, Any]) -> str:
    """:attr:`Identity.key` of an entry."""
    return identify(entry).key


def files_state(entry: Mapping[str, Any]) -> int:
    """What changes, in this process, when a file that is read of an entry is written or replaced."""
    paths = [path for key, value in entry.items() if key not in NO_INPUT for path in _paths(key, value)]
    stats = [os.stat(file) for path in paths for file in files_of(path)]
    return hash(tuple((one.st_size, one.st_mtime_ns, one.st_ino) for one in stats))


def _paths(key: str, value: Any) -> list[Any]:
    """The files or folders that a value of an entry names; none if it is anything else."""
    paths = list(value) if isinstance(value, list | tuple) else [value]
    return paths if all(_is_path(key, path) for path in paths) else []


def _short(digest: str) -> int:
    return int.from_bytes(bytes.fromhex(digest[:16]), signed=True)


def _is_path(key: str, value: Any) -> bool:
    named = isinstance(value, str | os.PathLike) and (key in PATHS or os.sep in os.fspath(value))
    return named and os.path.exists(value)


def code_version() -> str:
    """Digest of this package's code that makes embeddings, and of the versions of the libraries that it uses."""
    return digest_code(ROOMS, LIBRARIES)
