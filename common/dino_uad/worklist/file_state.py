"""Has a file changed since it was scored? Told by what the file system says of all files that are read for it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dino_uad.describe import describe
from dino_uad.digests import digest_facts
from dino_uad.transforms import files_of

NO_INPUT = ("image", "label", "anomalous", "group")
"""Keys of an entry that are no settings: the file, whose state is looked at, and what inference does not read."""


def entry_state(entry: Mapping[str, Any]) -> str:
    """What changes when the files of an entry are replaced, or another part of them, such as a series, is read."""
    return digest_facts(
        [file_state(entry["image"]), {key: describe(value) for key, value in entry.items() if key not in NO_INPUT}]
    )


def file_state(path: str | Path) -> str:
    """What changes when a file that is read for ``path`` is replaced: its values may lie in others than itself."""
    path = Path(path)
    try:
        stats = [(os.path.relpath(file, path.parent), file.stat()) for file in _read_with(path)]
    except OSError:
        return "gone"
    return hashlib.sha256(
        repr([(name, s.st_size, s.st_mtime_ns) for name, s in stats]).encode("utf-8", "surrogateescape")
    ).hexdigest()


def _read_with(path: Path) -> list[Path]:
    """The files of a scan; the header alone where it makes no sense, about which its reader says more."""
    try:
        return files_of(path)
    except (ValueError, TypeError):
        return [path]
