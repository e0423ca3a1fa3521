"""Reading what ``torch.save`` wrote: no code is run, and no bit of it has changed."""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)


def load_torch(path: str | os.PathLike[str], map_location: str | torch.device = "cpu", mmap: bool = False) -> Any:
    """``torch.load`` of a file whose checksums are right.

    torch puts a checksum of every tensor into the file and looks at none: a changed bit gives other results without a
    word. Here each file is read through once in a process, a megabyte at a time, which takes 0.6 s a gigabyte.

    Args:
        path: the file.
        map_location: where the tensors go.
        mmap: leave the tensors in the file until they are looked at.

    Raises:
        ValueError: bytes have changed.
        Exception: whatever torch raises of a file that is cut off, is none of its own, or asks for code.
    """
    status = os.stat(path)
    _check(os.fspath(path), status.st_size, status.st_mtime_ns, status.st_ino)
    return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)


def load_parts(
    path: Path, names: Iterable[str], what: str, map_location: str | torch.device = "cpu"
) -> dict[str, Any] | None:
    """Named parts of a checkpoint; None where there is none, or, with a warning, where it is damaged or lacks one.

    Args:
        path: the file.
        names: of the parts.
        what: starts again then, in the words of the warning.
        map_location: where the tensors go.
    """
    if not path.is_file():
        return None
    try:
        stored = load_torch(path, map_location)
        return {name: stored[name] for name in names}
    except Exception as error:  # pickle raises almost anything on damaged bytes
        logger.warning(f"{path} is damaged or no checkpoint ({error!r}); {what} starts again and will replace it")
        return None


@lru_cache(maxsize=32)
def _check(path: str, *state: int) -> None:
    """Raise ValueError if a checksum is not that of its bytes; ``state`` tells another file of the same name."""
    if not zipfile.is_zipfile(path):
        return  # torch says what else it is
    name = os.path.basename(path)
    try:
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
    except Exception as error:  # a changed bit in a head may ask for any compression, encryption or place
        raise ValueError(f"{name}: its zip is damaged: {error}") from error
    if changed is not None:
        raise ValueError(f"{name}: the bytes of {changed} have changed, their checksum is another")
