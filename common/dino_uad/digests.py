"""SHA-256 of what decides a result: files, facts, and source code."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dino_uad
from dino_uad.versions import installed_version


def digest_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, as ``sha256sum`` prints it."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_json(facts: Any, default: Callable[[Any], Any] | None = None) -> str:
    """Return the SHA-256 of JSON types, whatever the order of their keys; ``default`` makes other values such types."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=default).encode()).hexdigest()


def digest_facts(facts: Any) -> str:
    """Return the first half of :func:`digest_json`: enough for a name."""
    return digest_json(facts)[:32]


@functools.cache
def digest_code(rooms: tuple[str, ...] = ("",), libraries: tuple[str, ...] = ()) -> str:
    """Return a digest of this package's Python files, and of the versions of what they use; made once in a process.

    Args:
        rooms: folders and modules of the package that count; all by default.
        libraries: names of installed packages.
    """
    package = Path(dino_uad.__file__).parent
    places = [package / room for room in rooms]
    sources = [path for place in places for path in ([place] if place.is_file() else place.rglob("*.py"))]
    files = {path.relative_to(package).as_posix(): digest_file(path) for path in sorted(sources)}
    return digest_facts([files, [installed_version(name) for name in libraries]])
