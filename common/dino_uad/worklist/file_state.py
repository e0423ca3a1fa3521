"""Has a file changed since it was scored? Told by what the file system says of all files that are read for it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from dino_uad.transforms import files_of


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
